import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmia.data import population
from lmia.data.population import (
    CHOICES,
    MEASURES,
    STYLES,
    TWIN_DISTANCE,
    PopulationSpec,
    distance,
    feature_vector,
    person,
    photo,
)
from lmia.data.portrait import draw
from lmia.data.sources import SOURCES
from lmia.specs import RequestError, UnknownName

SPEC = PopulationSpec()


def drawn(source, index, number, size=64, spec=SPEC):
    return draw(person(spec, source, index), photo(spec, source, index, number), size)


def test_pictures_do_not_depend_on_process_or_order():
    """Another process that starts at a later person draws the same bytes."""
    code = (
        "import hashlib; from lmia.data.population import *; from lmia.data.portrait import draw\n"
        "spec = PopulationSpec(); source = 'south'\n"
        "for i, k in [(30, 2), (3, 0)]:\n"
        "    print(hashlib.sha256(draw(person(spec, source, i), photo(spec, source, i, k), 64).tobytes()).hexdigest())"
    )
    import hashlib

    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    here = [hashlib.sha256(drawn("south", i, k).tobytes()).hexdigest() for i, k in [(3, 0), (30, 2)]]
    assert there == here[::-1]


def test_a_table_does_not_depend_on_what_else_is_asked_for():
    source = SOURCES.get("population")
    whole = source.pictures(SPEC, "north", "A", source.identities(SPEC, "north")[:6], range(3))
    alone = source.pictures(SPEC, "north", "A", ["north-0004"], [2])
    assert alone.table.equals(whole.select(["north/north-0004/2"]).table)


@given(st.integers(0, 2**31), st.sampled_from(sorted(STYLES)))
@settings(max_examples=5, deadline=None)
def test_nobody_has_a_near_twin_and_everybody_has_a_name_of_their_own(seed, source):
    spec = PopulationSpec(seed=seed)
    people = [person(spec, source, index) for index in range(120)]
    vectors = np.array([feature_vector(one) for one in people])
    gaps = np.abs(vectors[:, None] - vectors[None]).sum(-1)
    np.fill_diagonal(gaps, 10**9)
    assert gaps.min() >= TWIN_DISTANCE
    assert distance(people[3], people[5]) == gaps[3, 5]
    names = {one.name for one in people} | {person(spec, other, i).name for other in STYLES for i in range(20)}
    others = sum(20 for other in STYLES if other != source)
    assert len(names) == 120 + others
    assert all(len(name.split()) == 2 for name in names)


def test_near_twins_would_occur_without_the_rule(monkeypatch):
    """The rule does something: independent draws of 1,500 people do contain near-twins."""
    people = [population._draw_person(0, "north", index, 0) for index in range(1500)]
    vectors = np.array([feature_vector(one) for one in people], dtype=np.int32)
    closest = min(np.abs(vectors[:at] - vectors[at]).sum(1).min() for at in range(1, len(people)))
    assert closest < TWIN_DISTANCE
    kept = np.array([feature_vector(person(SPEC, "north", index)) for index in range(1500)], dtype=np.int32)
    assert min(np.abs(kept[:at] - kept[at]).sum(1).min() for at in range(1, len(kept))) >= TWIN_DISTANCE


def test_order_of_asking_does_not_change_people():
    late_first = population._People(7, "east")
    late = late_first.upto(80)[80]
    assert [population._People(7, "east").upto(i)[i] for i in (0, 40)] == [late_first.people[i] for i in (0, 40)]
    assert late == person(PopulationSpec(seed=7), "east", 80)


def test_features_cover_their_options_and_ranges():
    people = [person(SPEC, "wild", index) for index in range(400)]
    for name, (options, _) in CHOICES.items():
        assert {one.choice(name) for one in people} == set(options)
    for name, (low, high, _) in MEASURES.items():
        values = [one.measure(name) for one in people]
        assert low <= min(values) and max(values) <= high
    assert all(one.choice("facial_hair") == "none" for one in people if one.choice("gender") == "woman")


def test_any_size_shows_the_same_picture():
    for index in range(4):
        small = drawn("north", index, 0, 64).astype(float)
        large = drawn("north", index, 0, 256).reshape(64, 4, 64, 4, 3).mean((1, 3))
        assert np.abs(small - large).mean() < 5
    assert drawn("north", 0, 0, 40).shape == (40, 40, 3)


def small(images, side):
    step = images.shape[1] // side
    return images.reshape(len(images), side, step, side, step, 3).mean((2, 4)).reshape(len(images), -1) / 255


def stack(source, indices, photos):
    return np.stack([drawn(source, index, number) for index in indices for number in photos])


def test_sources_overlap():
    """A linear classifier of 8 x 8 pixels, fitted on other people, tells north from south well, not perfectly."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fit = np.concatenate([small(stack(source, range(150), range(2)), 8) for source in ("north", "south")])
    judge = np.concatenate([small(stack(source, range(150, 270), range(1)), 8) for source in ("north", "south")])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    model.fit(fit, np.repeat([1, 0], 300))
    auc = roc_auc_score(np.repeat([1, 0], 120), model.decision_function(judge))
    assert 0.80 < auc < 0.94


def test_people_are_recognised_across_their_photos():
    """Fisher faces fitted on other people name 60 persons of an institution from one other photo each."""
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    fit = small(stack("wild", range(100), range(5)), 32)
    reduce = PCA(80, random_state=0).fit(fit)
    fisher = LinearDiscriminantAnalysis(n_components=30).fit(reduce.transform(fit), np.repeat(np.arange(100), 5))
    photos = small(stack("north", range(60), range(2)), 32)
    embedded = fisher.transform(reduce.transform(photos)).reshape(60, 2, -1)
    gaps = np.linalg.norm(embedded[:, None, 1] - embedded[None, :, 0], axis=-1)
    assert (gaps.argmin(axis=1) == np.arange(60)).mean() > 0.75
    assert np.diag(gaps).mean() < 0.6 * gaps[~np.eye(60, dtype=bool)].mean()


def test_wrong_requests_are_named():
    source = SOURCES.get("population")
    with pytest.raises(UnknownName, match="did you mean 'north'"):
        source.identities(SPEC, "nort")
    with pytest.raises(UnknownName):
        person(SPEC, "west", 0)
    with pytest.raises(RequestError, match="south-0001"):
        source.pictures(SPEC, "north", "A", ["south-0001"], [0])
    with pytest.raises(RequestError, match="each person has 100"):
        source.pictures(SPEC, "north", "A", ["north-0001"], [100])


def test_people_and_pictures_are_those_of_version_1():
    """If this fails on purpose, raise the version of the data source: everything made of it changes."""
    assert SOURCES.get("population").version == 1
    one = person(SPEC, "north", 0)
    assert (one.name, one.choices[:5]) == ("Delin Variden", ("man", "short", "brown", "grey", "square"))
    assert one.levels[:5] == (588, 364, 780, 641, 128)
    quarters = drawn("wild", 41, 1).reshape(2, 32, 2, 32, 3).mean((1, 3, 4))
    assert np.allclose(quarters, [[123.5, 115.9], [163.6, 148.1]], atol=0.2)
