"""What keeps a Ray cluster that this process starts to this user: loopback sockets, a fresh token, private folders.

Ray listens on all interfaces of a machine and lets in whoever reaches a port, and whoever is let in runs code. So a
local cluster gets three walls: every socket of it is bound to the loopback; a token that was drawn for this process
is asked for on each call, the agents' included; and its session folder (sockets, logs) belongs to the user alone.
"""

import atexit
import contextlib
import functools
import os
import secrets
import tempfile
from pathlib import Path

from lmia.scratch import scratch

LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""With "0" Ray takes the loopback for the node's address, as it does by default on macOS, and so binds to it alone."""

LONGEST_ROOT = 16
"""Ray's sockets lie some 95 characters below, and the path of a socket has at most 107 bytes."""


@functools.cache
def private_folder() -> Path:
    """A folder for this process's cluster, readable by its user alone; removed when the process ends."""
    root = Path(tempfile.gettempdir())
    if len(str(root)) > LONGEST_ROOT:
        root = Path("/tmp")
    until_exit = contextlib.ExitStack()
    atexit.register(until_exit.close)
    return until_exit.enter_context(scratch("ray", root))


@functools.cache
def token_file() -> Path:
    """A file with the token of this process, drawn once."""
    path = private_folder() / "token"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))
    return path


def keep_private() -> dict[str, str]:
    """Set up this process so that the cluster that it starts next is private; what `ray.init` is to be told.

    The environment carries the token's path, never the token: Ray writes environments into its logs.
    """
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_file()), LOOPBACK_ONLY: "0"}
    # What this process has read of its environment when it imported Ray, it reads again.
    ray_constants.ENABLE_RAY_CLUSTER = False
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
    return {"_node_ip_address": "127.0.0.1", "_temp_dir": str(private_folder() / "ray")}
