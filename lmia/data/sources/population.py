"""The synthetic population as a data source: nothing to download, any number of people."""

import numpy as np

from lmia.data import captions, population
from lmia.data.pictures import Pictures
from lmia.data.population import PopulationSpec
from lmia.data.portrait import draw
from lmia.data.sources import SOURCES, DataSource
from lmia.specs import RequestError, UnknownName


@SOURCES.register("population")
class Population(DataSource):
    """Procedurally drawn people of `lmia.data.population`, drawn by `lmia.data.portrait`."""

    version = 1
    Spec = PopulationSpec

    @staticmethod
    def check(spec: PopulationSpec) -> list[str]:
        """Nothing can be wrong beyond what the spec's bounds refuse."""
        return []

    @staticmethod
    def digest(spec: PopulationSpec, source: str) -> str:
        """Empty: the pictures depend on the spec and this code alone."""
        _known(source)
        return ""

    @staticmethod
    def identities(spec: PopulationSpec, source: str) -> list[str]:
        """``SOURCE-0000`` and so on, ``spec.people`` of them."""
        _known(source)
        return [f"{source}-{index:04d}" for index in range(spec.people)]

    @staticmethod
    def photos(spec: PopulationSpec, source: str, identity: str) -> int:
        """The same for everybody: ``spec.photos``."""
        return spec.photos

    @staticmethod
    def pictures(
        spec: PopulationSpec, source: str, part: str, identities: list[str], photos: range | list[int]
    ) -> Pictures:
        """Draws the photos; ids ``source/identity/number``, captions from the features."""
        _known(source)
        beyond = [number for number in photos if not 0 <= number < spec.photos]
        if beyond:
            raise RequestError(
                f"photos: number {beyond[0]} asked for, but each person has {spec.photos} (0 is the first)"
            )
        ids, names, texts, images = [], [], [], []
        for identity in identities:
            person = population.person(spec, source, population.parse_identity(source, identity))
            for number in photos:
                photo = population.photo(spec, source, person.index, number)
                ids.append(f"{source}/{identity}/{number}")
                names.append(identity)
                texts.append(captions.caption(source, person, photo))
                images.append(draw(person, photo, spec.size))
        stack = np.stack(images) if images else np.zeros((0, spec.size, spec.size, 3), np.uint8)
        count = len(ids)
        return Pictures.of(ids, stack, identity=names, source=[source] * count, part=[part] * count, caption=texts)


def _known(source: str) -> None:
    if source not in population.STYLES:
        raise UnknownName("source of the population", source, population.STYLES)
