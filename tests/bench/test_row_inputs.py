"""A row's inputs travel under flat names; nothing but `flatten` and `unflatten` knows these."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.artifacts.row import (
    BlindInputs,
    RowInputs,
    ScoredInputs,
    TargetInputs,
    WorldInputs,
    flatten,
    people_needed,
    unflatten,
)

leaves = st.text(min_size=1, max_size=8)
maybe = st.none() | leaves
scored = st.builds(ScoredInputs, leaves, maybe, maybe)
targets = st.builds(TargetInputs, scored, st.none() | scored, st.none() | scored, maybe, maybe, maybe)
blinds = st.builds(BlindInputs, leaves) | st.builds(BlindInputs, st.none(), leaves, leaves, leaves)
places = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2)), min_size=1, max_size=4, unique=True).map(sorted)


@st.composite
def rows(draw):
    worlds = tuple(WorldInputs(draw(targets), draw(targets), *place) for place in draw(places))
    return RowInputs(worlds, draw(st.none() | blinds), draw(maybe))


@given(rows())
def test_unflatten_is_the_inverse_of_flatten(inputs):
    flat = flatten(inputs)
    assert unflatten(flat) == inputs
    shuffled = dict(sorted(flat.items(), reverse=True))
    assert unflatten(shuffled) == inputs, "the order of names says nothing"
    assert all(isinstance(value, str) for value in flat.values())


def test_unknown_names_are_refused():
    flat = flatten(RowInputs((WorldInputs(*[TargetInputs(ScoredInputs("x"))] * 2),)))
    for name in ("w0.a.seen.scores", "w0m0.c.seen.scores", "w0m0.a.seen.more", "blind.both", "w1m0.a.seen.scores"):
        with pytest.raises((ValueError, TypeError)):
            unflatten({**flat, name: "y"})


def test_whose_pictures_an_attacker_needs():
    assert people_needed("real", shadow_target=False) == people_needed("mix", shadow_target=False) == "another source"
    assert people_needed("part_c", shadow_target=False) == people_needed(None, shadow_target=True) == "same source"
    assert people_needed(None, shadow_target=False) == people_needed("base", shadow_target=False) == "none"
