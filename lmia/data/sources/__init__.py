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
    draws_photos: ClassVar[bool] = False
    """Whether which photos of a person come first is drawn (`pictures` then takes a `seed`); else all are alike."""

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

    @classmethod
    def captions(cls, spec: Any, source: str) -> dict[str, str | None]:
        """Captions by picture name, for a source whose captions are somebody's; empty where the source writes them."""
        return {}

    @classmethod
    def uncaptioned(cls, spec: Any, source: str) -> list[str]:
        """Names of the pictures of a source that have no caption of their own."""
        return [name for name, caption in cls.captions(spec, source).items() if not caption]

    @staticmethod
    def pictures(spec: Any, source: str, part: str, identities: list[str], photos: range | list[int]) -> Pictures:
        """The given photos (by number) of the given persons, with ids ``source/identity/number``, own captions."""
        raise AssertionError("a data source defines pictures")

    @classmethod
    def all_of(cls, spec: Any, source: str, identities: list[str]) -> Pictures:
        """All photos of the given persons, however many there are of each."""
        found = [cls.pictures(spec, source, source, [who], range(cls.photos(spec, source, who))) for who in identities]
        return Pictures.concat(found)


SOURCES: Registry[type[DataSource]] = Registry("data source", "lmia.data.sources")
