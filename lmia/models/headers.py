"""The header of a safetensors file: names and shapes of its weights, and what a file is that has none.

Nothing here reads weights or imports torch, so that naming a model stays cheap.
"""

import json
from pathlib import Path

from lmia.specs import RequestError

MEGABYTE = 2**20


def weight_shapes(path: Path, reference: str, field: str = "model") -> dict[str, tuple[int, ...]]:
    """Shapes of the weights in a safetensors file by their names, sorted.

    Raises:
        RequestError: it is none, and what it is instead; `field` and `reference` are how the person named it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in sorted(file.keys())}
    except (SafetensorError, OSError) as error:
        raise RequestError(f"{field} = {reference!r}: {path.name} {_instead(path, error)}") from error


def weight_names(path: Path, reference: str) -> list[str]:
    """Names of the weights in a safetensors file, sorted."""
    return list(weight_shapes(path, reference))


def metadata_of(path: Path) -> dict[str, str]:
    """What a safetensors file says about itself."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return dict(file.metadata() or {})


def json_object(path: Path, reference: str, field: str = "model") -> dict[str, object]:
    """A JSON file's object.

    Raises:
        RequestError: it is missing, or holds something else.
    """
    where = f"{path.parent.name}/{path.name}" if path.name != path.parent.name else path.name
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RequestError(f"{field} = {reference!r}: no {where}, which says what the weights are of") from error
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{field} = {reference!r}: {where} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise RequestError(f"{field} = {reference!r}: {where} is not a JSON object")
    return found


def _instead(path: Path, error: Exception) -> str:
    """What a file is that cannot be opened as safetensors, and what to do about it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as unread:
        return f"cannot be read: {unread.strerror or unread}"
    if not size:
        return "is empty (0 bytes): copy or download it again"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the weights themselves: fetch them with `git lfs pull`"
    if start.lstrip()[:1] == b"<":
        return "is a web page, not weights (an address of a page was saved): download the file itself"
    if start.startswith((b"\x80", b"PK\x03\x04")):
        return "is a pickle under another name, which can run code when it is read: convert it to safetensors"
    told = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and told < 100 * MEGABYTE:
        needed = told + 8 if size < told + 8 else _told_size(path, told)
        if needed > size:
            return f"is cut off: it has {size:,d} bytes, and its header tells of {needed:,d}: copy or download it again"
    return f"is not a safetensors file: {error}"


def _told_size(path: Path, header: int) -> int:
    """Bytes that a safetensors file should have by its header; 0 if that cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(8)
            told = json.loads(file.read(header))
        return 8 + header + max(entry["data_offsets"][1] for name, entry in told.items() if name != "__metadata__")
    except (OSError, RecursionError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return 0
