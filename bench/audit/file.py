"""An audit as a YAML file, to be repeated: what the options of `lmia audit` say, paths relative to the file."""

import os
from pathlib import Path
from typing import Any

import yaml

from bench.audit.request import Audit
from bench.config import read_file
from lmia.embedded import EMBEDDED
from lmia.models.files import HUB_ID
from lmia.specs import RequestError, UnknownName

FOLDERS = ("members", "nonmembers", "generated", "shadow", "auxiliary")
MODELS = ("model", "base")


def read(path: str | Path) -> dict[str, Any]:
    """The settings of an audit from a file, with paths that hold from the working directory.

    Raises:
        RequestError: no such file, not YAML, a key that stands twice, or not a mapping of fields of an audit.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise RequestError(f"--file {str(path)!r}: no such file")
    raw = read_file(file)
    unknown = [key for key in raw if key not in Audit.model_fields]
    if unknown:
        raise RequestError(f"{path}: {UnknownName('key', unknown[0], Audit.model_fields)}")
    for name in (*FOLDERS, *MODELS):
        value = raw.get(name)
        if isinstance(value, str) and (name in FOLDERS or _is_path(value, file.parent)):
            raw[name] = str(file.parent / Path(value).expanduser())
    return raw


def as_yaml(audit: Audit, folder: Path) -> str:
    """The file that asks the same again, as it stands in `folder`.

    Paths below the working directory are relative to `folder`, so that all of it can be moved; others are absolute.
    """
    raw = audit.model_dump(mode="json", exclude_defaults=True)
    here = Path.cwd()
    for name in (*FOLDERS, *MODELS):
        value = raw.get(name)
        if value is None or (name in MODELS and not _is_path(value, here)):
            continue
        path = Path(value).expanduser().absolute()
        inside = path.is_relative_to(here) and folder.absolute().is_relative_to(here)
        raw[name] = Path(os.path.relpath(path, folder.absolute())).as_posix() if inside else str(path)
    return yaml.safe_dump(raw, sort_keys=False, allow_unicode=True, width=100)


def _is_path(reference: str, folder: Path) -> bool:
    """Whether a model's reference is a path and no name of one that comes with lmia or from the hub."""
    if reference in EMBEDDED or HUB_ID.fullmatch(reference):
        return False
    return reference.startswith((".", "/", "~")) or (folder / reference).exists()
