"""What keeps a Ray cluster that this process starts to this user: loopback sockets, a fresh token, private folders.

Ray listens on all interfaces of a machine and lets in whoever reaches a port, and whoever is let in runs code. So a
local cluster gets three walls: every socket of it is bound to the loopback; a token that was drawn for this process
is asked for on each call, the agents' included; and its session folder (sockets, logs) belongs to the user alone.
"""

import atexit
import functools
import os
import secrets
import shutil
import tempfile
from pathlib import Path

LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""With "0" Ray takes the loopback for the node's address, as it does by default on macOS, and so binds to it alone."""

PREFIX = f"lmia-ray-{os.getuid()}-"
LONGEST_ROOT = 16
"""Ray's sockets lie some 95 characters below, and the path of a socket has at most 107 bytes."""


@functools.cache
def private_folder() -> Path:
    """A folder for this process's cluster, readable by its user alone; removed when the process ends."""
    root = Path(tempfile.gettempdir())
    if len(str(root)) > LONGEST_ROOT:
        root = Path("/tmp")
    remove_left_behind(root)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=root))  # mode 0700
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # not at the end of a fork
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def remove_left_behind(root: Path) -> None:
    """Remove the folders of this user's processes that were killed before they could; a folder names its process."""
    for folder in root.glob(f"{PREFIX}*-*"):
        pid = folder.name.removeprefix(PREFIX).split("-")[0]
        if pid.isdigit() and not _is_alive(int(pid)) and folder.lstat().st_uid == os.getuid():
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        pass
    return True


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
