"""The models that are shipped with the package: tiny Stable Diffusions, remade by `lmia pretrain`."""

from importlib import resources
from pathlib import Path

EMBEDDED = ("tiny", "tiny_long")


def embedded(name: str) -> Path:
    """The folder of a model that comes with lmia."""
    return Path(str(resources.files(__name__) / name))
