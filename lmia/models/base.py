"""The old place of some names, until everybody asks for them at the new ones."""

from lmia.embedded import EMBEDDED, embedded
from lmia.resolve import resolve_base

__all__ = ["EMBEDDED", "embedded", "resolve_base"]
