"""Data sources: where pictures of people come from. A new source is one file here and one decorator."""

from typing import Any, ClassVar

from lmia.data.pictures import Pictures
from lmia.registry import Registry
from lmia.specs import Spec


class DataSource:
    """What every source of pictures offers; all methods are static and pure in the spec and the files it names."""

    name: ClassVar[str]
    version: ClassVar[int]
    Spec: ClassVar[type[Spec]]

    @staticmethod
    def check(spec: Any) -> list[str]:
        """Warnings about the data, e.g. unreadable pictures left out; RequestError on a mistake."""
        raise AssertionError("a data source defines check")

    @staticmethod
    def digest(spec: Any, source: str) -> str:
        """Hash of what the pictures depend on outside of the spec; empty if nothing."""
        raise AssertionError("a data source defines digest")

    @staticmethod
    def identities(spec: Any, source: str) -> list[str]:
        """All persons of a source in a stable order."""
        raise AssertionError("a data source defines identities")

    @staticmethod
    def photos(spec: Any, source: str, identity: str) -> int:
        """How many photos there are of a person."""
        raise AssertionError("a data source defines photos")

    @staticmethod
    def parts(spec: Any, source: str) -> dict[str, list[str]] | None:
        """A split that the data itself prescribes (part -> persons); None where people may be split freely."""
        return None

    @staticmethod
    def uncaptioned(spec: Any, source: str) -> list[str]:
        """Names of the pictures of a source that have no caption of their own."""
        return []

    @staticmethod
    def pictures(spec: Any, source: str, part: str, identities: list[str], photos: range | list[int]) -> Pictures:
        """The given photos (by number) of the given persons, with ids ``source/identity/number``, own captions."""
        raise AssertionError("a data source defines pictures")


SOURCES: Registry[type[DataSource]] = Registry("data source", "lmia.data.sources")
