"""A proxy before an S3 that counts requests and, as it is told, breaks them."""

import contextlib
import http.client
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

KINDS = ("503", "500", "reset", "hang", "short")
HOP = {"connection", "transfer-encoding", "keep-alive", "expect"}


class Proxy:
    """Forwards to `target`; `fault(method, path)` names what goes wrong with a request, or None.

    Attributes:
        requests: (method, path with query) of each one.
        address: to be given as AWS_ENDPOINT_URL.
    """

    def __init__(self, target: str, fault=lambda method, path: None, hang_s: float = 2.0):
        self.target, self.fault, self.hang_s = urlsplit(target), fault, hang_s
        self.requests: list[tuple[str, str]] = []
        self.broken: Counter[str] = Counter()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def forward(self):
                proxy.handle(self)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = forward

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def handle(self, request):
        self.requests.append((request.command, request.path))
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        kind = self.fault(request.command, request.path)
        if kind:
            self.broken[kind] += 1
        if kind == "reset":
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.close_connection = True
            request.connection.close()
            return
        if kind == "hang":
            time.sleep(self.hang_s)
            request.close_connection = True
            return
        if kind in ("403", "404", "500", "503"):
            code = {"403": "AccessDenied", "404": "NoSuchKey", "500": "InternalError", "503": "SlowDown"}[kind]
            self.answer(
                request, int(kind), {}, f"<Error><Code>{code}</Code><Message>told to</Message></Error>".encode()
            )
            return
        connection = http.client.HTTPConnection(self.target.hostname, self.target.port, timeout=60)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        connection.request(request.command, request.path, body, headers)
        found = connection.getresponse()
        self.answer(request, found.status, dict(found.getheaders()), found.read(), short=kind == "short")
        connection.close()

    def answer(self, request, status, headers, body, short=False):
        with contextlib.suppress(OSError):
            request.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in HOP | {"content-length"}:
                    request.send_header(name, value)
            length = headers.get("Content-Length", headers.get("content-length")) if request.command == "HEAD" else None
            request.send_header("Content-Length", length or str(len(body)))
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(body[: len(body) // 2] if short else body)
            if short:
                request.close_connection = True
