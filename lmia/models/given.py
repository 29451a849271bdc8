"""The old place of some names, until everybody asks for them at the new ones."""

from lmia.resolve import ExternalModel as Given
from lmia.resolve import overlay_files
from lmia.resolve import resolve_model as resolve_given

__all__ = ["Given", "overlay_files", "resolve_given"]
