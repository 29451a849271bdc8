import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lmia.data.parts import assign, near_duplicates, thumbnail
from lmia.data.pictures import Pictures
from lmia.data.population import PopulationSpec
from lmia.data.sources import SOURCES
from lmia.specs import RequestError

POPULATION = SOURCES.get("population")


@given(st.integers(0, 30), st.dictionaries(st.sampled_from("ABC"), st.integers(0, 8)), st.integers(0, 2**31))
def test_parts_are_disjoint_and_do_not_depend_on_order(spare, people, seed):
    identities = [f"north-{i:04d}" for i in range(sum(people.values()) + spare)]
    parts = assign(identities, people, seed)
    assert {part: len(members) for part, members in parts.items()} == people
    everyone = [identity for members in parts.values() for identity in members]
    assert len(set(everyone)) == len(everyone) and set(everyone) <= set(identities)
    again = assign(identities[::-1], dict(reversed(people.items())), seed)
    assert again == parts


def test_parts_do_not_mix_up_when_a_later_part_is_added():
    identities = [f"p{i}" for i in range(40)]
    few, more = assign(identities, {"A": 5, "B": 5}, 3), assign(identities, {"A": 5, "B": 5, "C": 9}, 3)
    assert few == {part: more[part] for part in few}
    assert assign(identities, {"A": 20}, 3) != assign(identities, {"A": 20}, 4)


def test_too_few_people_is_said_with_numbers():
    with pytest.raises(RequestError, match=r"there are 3 people, but 6 are needed \(A 2, B 4\)"):
        assign(["a", "b", "c"], {"A": 2, "B": 4}, 0)
    with pytest.raises(RequestError, match="'a' is listed twice"):
        assign(["a", "a"], {"A": 1}, 0)
    with pytest.raises(RequestError, match="fewer than 0"):
        assign(["a", "b"], {"A": -1}, 0)


def two_parts(count=60):
    spec, names = PopulationSpec(), POPULATION.identities(PopulationSpec(), "north")
    return [
        POPULATION.pictures(spec, "north", "A", names[:count], [0, 1]),
        POPULATION.pictures(spec, "north", "B", names[count : 2 * count], [0, 1]),
    ]


def found_in(pictures):
    """Pairs of ids, nearly the same picture, in two parts."""
    pairs = near_duplicates(np.stack([thumbnail(image) for image in pictures.images()]), parts_of(pictures))
    return [(pictures.ids[row], pictures.ids[later]) for row, later, _ in pairs]


def parts_of(pictures):
    return pictures.table.column("part").to_pylist()


def test_population_has_no_near_duplicates_across_parts():
    assert found_in(Pictures.concat(two_parts())) == []


def recompressed(image):
    sink = io.BytesIO()
    Image.fromarray(image).save(sink, "JPEG", quality=50)
    return np.asarray(Image.open(sink))


@pytest.mark.parametrize(
    "change",
    [
        recompressed,
        lambda image: image[:, ::-1],
        lambda image: np.clip(image * 1.08 + 4, 0, 255).astype(np.uint8),
        lambda image: np.asarray(Image.fromarray(image[1:-1, 1:-1]).resize((64, 64), Image.Resampling.BICUBIC)),
        lambda image: np.asarray(Image.fromarray(image).resize((48, 48)).resize((64, 64))),
    ],
    ids=["jpeg", "mirrored", "brighter", "cropped", "resized"],
)
def test_a_picture_that_comes_again_on_the_other_side_is_found(change):
    first, second = two_parts(20)
    copied = np.stack([change(first.images()[7])])
    again = Pictures.of(["north/x/0"], copied, identity=["x"], source=["north"], part=["B"])
    assert found_in(Pictures.concat([first, second, again])) == [(first.ids[7], "north/x/0")]
    assert found_in(Pictures.concat([first, second, again.with_columns(part=["A"])])) == []  # within one part it may


def test_plain_pictures_are_like_nothing():
    plain = Pictures.of(["a", "b"], np.full((2, 64, 64, 3), 99, np.uint8), part=["A", "B"])
    assert found_in(plain) == []
