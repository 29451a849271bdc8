"""Files that carry a checksum: written whole or not at all, verified when they are read.

What does not match its checksum is named in the log and counts as not there, so that it is made again.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Makes a file or a folder out of sight with `write(path)`, then puts it in the place of what was at `path`."""
    writing = path.with_name(f"{path.name}.writing")
    writing.parent.mkdir(parents=True, exist_ok=True)
    _remove(writing)
    write(writing)
    _remove(path)
    writing.replace(path)


def keep(path: Path, write: Callable[[Path], object], identity: str = "") -> None:
    """`write_whole`, with a checksum of the content and of `identity` beside it: `NAME.sha256`."""
    _remove(_beside(path))
    write_whole(path, write)
    write_whole(_beside(path), lambda file: file.write_text(_digest(path, identity) + "\n"))


def is_kept(path: Path, identity: str = "") -> bool:
    """Whether what `keep` wrote is there, unchanged and of this identity; the log names what is there and is not."""
    if not path.exists():
        return False
    beside = _beside(path)
    if beside.is_file() and beside.read_bytes() == (_digest(path, identity) + "\n").encode():
        return True
    log.warning("%s does not match its checksum: it is made again", path)
    return False


def kept(path: Path, write: Callable[[Path], object], identity: str = "") -> Path:
    """`path`, written by `write` unless it is kept already."""
    if not is_kept(path, identity):
        keep(path, write, identity)
    return path


def write_tensors(file: Path, tensors: Mapping[str, "Tensor"], state: Mapping[str, Any]) -> None:
    """Writes tensors and JSON values as one safetensors file with a checksum; a crash leaves the old or the new one."""
    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(state)
    save_file(plain, temporary, metadata={"state": text, "sha256": _tensor_digest(plain, text)})
    with open(temporary, "rb") as written:
        os.fsync(written.fileno())
    os.replace(temporary, file)


def read_tensors(file: Path) -> tuple[dict[str, "Tensor"], dict[str, Any]] | None:
    """(tensors, JSON values) that `write_tensors` wrote; None if there are none, or, as the log says, damaged ones."""
    if not file.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata()
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if metadata["sha256"] == _tensor_digest(tensors, metadata["state"]):
            return tensors, json.loads(metadata["state"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        pass  # damaged so that it cannot even be read
    log.warning("%s does not match its checksum: it is discarded", file)
    return None


def _tensor_digest(tensors: Mapping[str, "Tensor"], text: str) -> str:
    import torch

    total = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        total.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _digest(path: Path, identity: str) -> str:
    total = hashlib.sha256(json.dumps(identity).encode())
    for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
        with open(file, "rb") as content:
            own = hashlib.file_digest(content, "sha256").hexdigest()
        total.update(json.dumps([file.relative_to(path).as_posix(), own]).encode())
    return total.hexdigest()


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
