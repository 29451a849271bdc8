"""Where a store lies: a folder, or a bucket by fsspec; one session per process with each object store."""

import difflib
import importlib.util
import os
import re
import threading
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from lmia.specs import RequestError

SCHEMES = {"s3": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az", "memory": "memory"}
"""fsspec's protocols that a store may have, with the name that messages use."""
EXTRAS = {"gs": ("gcsfs", "lmia[gs]"), "az": ("adlfs", "lmia[az]")}
ALLOWED = "a folder, s3://BUCKET/PATH, gs://BUCKET/PATH or az://CONTAINER/PATH"

READ_TIMEOUT_S, CONNECT_TIMEOUT_S, ATTEMPTS = 20, 10, 4
"""Of one request to S3: a server that never answers ends a command after some READ_TIMEOUT_S x ATTEMPTS."""

_opened: dict[tuple[str | None, ...], Any] = {}
_lock = threading.Lock()


def open_files(uri: str | Path) -> tuple[str, Any, str]:
    """The address in full, its file system, and the root on it.

    Raises:
        RequestError: no such kind of store, or what is needed for it is not installed.
    """
    text = str(uri)
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):/", text)
    if match is None:
        path = str(Path(text).expanduser().absolute())
        return path, _session("file"), path
    scheme, rest = match[1], text[match.end() :].lstrip("/")
    if scheme == "file":
        return f"/{rest}", _session("file"), f"/{rest}"
    known = SCHEMES.get(scheme)
    if known is None or text != f"{scheme}://{rest}":
        close = SCHEMES.get(scheme.lower()) or next(
            iter(difflib.get_close_matches(scheme.lower(), SCHEMES, cutoff=0.5)), None
        )
        hint = f"; did you mean {close}://{rest}?" if close else ""
        raise RequestError(f"store = {text!r}: a store is {ALLOWED}{hint}")
    if not rest.split("/")[0]:
        raise RequestError(f"store = {text!r}: names no bucket; a store is {ALLOWED}")
    if "::" in text:
        raise RequestError(f"store = {text!r}: chained addresses are no stores; a store is {ALLOWED}")
    fs = _session(scheme)
    return text, fs, fs._strip_protocol(text)


def _session(scheme: str) -> Any:
    """The process's file system of a kind. fsspec alone would open one a thread, each with its own connections."""
    # Other credentials in the environment are another session.
    key = (scheme, *(os.environ.get(name) for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_ACCESS_KEY_ID")))
    with _lock:
        if key not in _opened:
            _opened[key] = _open(scheme)
        return _opened[key]


def _open(scheme: str) -> Any:
    if scheme == "file":
        return LocalFileSystem()
    module, extra = EXTRAS.get(SCHEMES[scheme], ("", ""))
    if module and scheme not in fsspec.registry and importlib.util.find_spec(module) is None:
        raise RequestError(f"a store on {scheme}:// needs {module}: pip install '{extra}'")
    # Other machines write too: a listing from a minute ago must not say what is there.
    options: dict[str, Any] = {"use_listings_cache": False}
    if scheme == "s3" and "config_kwargs" not in fsspec.config.conf.get("s3", {}):
        # Each request is tried some times by s3fs; botocore alone would try each of these again.
        retries = {"mode": "standard", "total_max_attempts": ATTEMPTS}
        timeouts = {"read_timeout": READ_TIMEOUT_S, "connect_timeout": CONNECT_TIMEOUT_S}
        options |= {"config_kwargs": {**timeouts, "retries": retries}, "skip_instance_cache": True}
    fs = fsspec.filesystem(scheme, **options)
    if scheme == "s3":
        fs.retries = 2
    return fs
