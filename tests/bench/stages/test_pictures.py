"""Pictures: real, marked, taken, mixed and drawn."""

import numpy as np
import pytest

from bench.artifacts.pictures import marked_set, mixed_set, taken_set
from bench.jobs import Payload
from bench.stages import pictures
from lmia.data.marks import MARKS
from lmia.data.sources import SOURCES

from .conftest import BASE, DATA, MEMBERS, OTHERS, drawn, target


def test_real_pictures_are_those_of_the_source(desk):
    found = desk.pictures(MEMBERS)
    spec = MEMBERS.spec
    expected = SOURCES.get("population").pictures(DATA, "north", "A", list(spec.identities), [0, 1])
    assert found.ids == expected.ids and found.captions == expected.captions
    assert np.array_equal(found.images(), expected.images())
    assert set(found.identities) == set(spec.identities) and len(found) == 8
    (part,) = desk.manifest(MEMBERS).parts
    assert part.name == "0.parquet"


def test_marked_pictures_keep_who_is_on_them(desk):
    marked = desk.pictures(marked_set(MEMBERS, "visible", MARKS.get("visible").Spec()))
    plain = desk.pictures(MEMBERS)
    assert marked.ids == plain.ids and marked.identities == plain.identities
    changed = (marked.images() != plain.images()).any(axis=(1, 2, 3))
    assert changed.all()


def test_some_are_taken_and_two_sets_are_mixed(desk):
    assert taken_set(MEMBERS, 8) is MEMBERS
    taken = desk.pictures(taken_set(MEMBERS, 3))
    assert len(taken) == 3 and set(taken.ids) < set(desk.pictures(MEMBERS).ids)
    mixed = desk.pictures(mixed_set(taken_set(MEMBERS, 3), OTHERS))
    assert mixed.ids == [*taken.ids, *desk.pictures(OTHERS).ids]


def test_a_drawn_set_is_made_in_slices_in_any_order(desk):
    artifact = drawn(BASE)
    desk.ref(BASE)
    jobs = desk.jobs(artifact)
    assert [job.payload.number for job in jobs] == [0, 1, 2] and {job.executor for job in jobs} == {"data"}
    desk.do(jobs[2])
    assert [job.payload.number for job in desk.jobs(artifact)] == [0, 1], "what is there is not asked for again"
    desk.make(artifact)
    found = desk.pictures(artifact)
    assert found.ids == [f"drawn/{n:06d}" for n in range(5)]
    before = desk.manifest(artifact)
    desk.do(jobs[0])
    assert desk.manifest(artifact).parts == before.parts, "drawn again to the same bytes"
    assert before.total("nfe") > 0 and before.numerics


def test_a_set_drawn_from_captions_uses_them(desk):
    found = desk.pictures(drawn(BASE, prompt="caption", captioned=MEMBERS))
    assert set(found.prompts) <= set(desk.pictures(MEMBERS).captions)
    assert len(set(desk.pictures(drawn(BASE)).prompts)) == 1


def test_another_model_draws_other_pictures_from_the_same_noises(desk):
    by_base, by_target = desk.pictures(drawn(BASE)), desk.pictures(drawn(target()))
    assert by_base.ids == by_target.ids
    assert not np.array_equal(by_base.images(), by_target.images())


def test_a_missing_input_is_an_error(desk):
    (job,) = [job for job in desk.jobs(drawn(BASE, count=2, most=2)) if job.payload.ref.method == "generated"]
    ref = job.payload.ref
    with pytest.raises(KeyError):
        pictures.make(Payload((type(ref)(**{**vars(ref), "inputs": {}}),)), desk.bench, lambda _: None)
