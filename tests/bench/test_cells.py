"""Presets, their validation and the cells that they ask for."""

import pytest

from bench.axes import AXES, ENTRANT_AXES, TARGET_AXES, Axes
from bench.cells import cells, load, suite, validate
from bench.config import preset_names
from lmia.specs import RequestError


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_and_ranks_what_may_be_ranked(name):
    found = cells(load(name))
    assert found
    keys = [str(cell.model_dump(exclude={"blocks"})) for cell in found]
    assert len(set(keys)) == len(keys)
    for cell in found:
        if cell.role == "ranked":
            assert cell.estimand == "same_source"
            assert not cell.flags
            assert cell.axes.member_mark == cell.axes.nonmember_mark
        if cell.axes.member_mark != cell.axes.nonmember_mark:
            assert "confounded" in cell.flags


def test_axes_that_do_not_apply_are_null_and_do_not_multiply():
    benchmark = validate(
        {"grid": [{"name": "x", "axes": {"attack": "loss", "aux": ["shadow", "real"], "guidance": [1, 3]}}]}, "test"
    )
    (cell,) = cells(benchmark)
    assert cell.axes.aux is None
    assert cell.axes.guidance is None
    assert cell.axes.captions == "caption"


def test_axes_are_those_of_the_row_and_each_belongs_to_one_thing():
    from bench.leaderboard.row import Row

    assert Row.model_fields["axes"].annotation is Axes
    assert tuple(AXES) == tuple(Axes.model_fields)
    assert sorted((*TARGET_AXES, *ENTRANT_AXES, "query")) == sorted(AXES)


@pytest.mark.parametrize(
    ("preset", "overrides", "message"),
    [
        ("quik", [], "did you mean 'quick'"),
        ("nowhere.yaml", [], "no such benchmark file"),
        ("tiny", ["poeple.A=3"], "did you mean 'people'"),
        ("tiny", ["people.A=3"], "the halves must be equal"),
        ("tiny", ["people.D=3"], "unknown part 'D'"),
        ("tiny", ["default.aux=shado"], "did you mean 'shadow'"),
        ("tiny", ["default.attack=los"], "did you mean 'loss'"),
        ("tiny", ["default.guidance=-1"], "default.guidance = -1"),
        ("tiny", ["default.steps=null"], "becomes null by itself"),
        ("tiny", ["grid.0.axes.stepz=[3]"], "did you mean 'steps'"),
        ("tiny", ["attacks.loss.noise=3"], "did you mean 'noises'"),
        ("tiny", ["finetune.learning=3"], "unknown key"),
        ("tiny", ["generate.guidance=3"], "guidance is an axis"),
        ("tiny", ["data.kind=population2"], "did you mean 'population'"),
        ("tiny", ["pictures"], "expected KEY=VALUE"),
        ("tiny", ["pictures=many"], "pictures = 'many'"),
        ("tiny", ["default.member_mark=both", "default.nonmember_mark=both"], "give a target_mark"),
        ("tiny", ["default.base=tinny"], "unknown base 'tinny'; did you mean 'tiny'"),
        ("tiny", ["default.attack=clid", "default.captions=empty"], "captions = 'empty': attack 'clid' cuts captions"),
        ("tiny", ["suite=[{epoch: 2}]"], "did you mean 'epochs'"),
        ("tiny", ["suite=[{epochs: 77}]"], "no cell of the grid has the target"),
        ("tiny", ["people={A: 3000, B: 3000, C: 9, aux: 9, query: 9}"], "there are 100;"),
    ],
)
def test_mistakes_are_named_before_any_work(preset, overrides, message):
    from bench.campaign import questions

    with pytest.raises(RequestError) as caught:
        questions(load(preset, overrides))
    assert message in str(caught.value)


def test_a_suite_is_completed_by_the_default():
    benchmark = load("tiny", ["suite=[{method: lora}, {epochs: 1}]"])
    assert [(t["method"], t["epochs"], t["base"]) for t in suite(benchmark)] == [
        ("lora", 2, "random"),
        ("full", 1, "random"),
    ]
    assert [c.model_dump() for c in cells(benchmark)] == [c.model_dump() for c in cells(load("tiny"))]


def test_attacks_that_learn_from_one_shadow_are_one_job_given_the_cells_captions():
    from bench.artifacts.artifact import walk
    from bench.campaign import questions
    from bench.driver import plan_jobs
    from bench.forecast import forecast
    from bench.store import Store

    grid = "grid=[{name: x, axes: {attack: [gsa1, gsa2, clid, loss, pia], captions: [caption, class]}}]"
    asked = questions(load("tiny", [grid]))
    jobs = [job for job in plan_jobs(walk(q.row for q in asked), None) if job.stage.kind == "attack"]
    fits = {str(job.payload.ref.spec["captions"]): len(job.artifacts) for job in jobs}
    assert fits == {"None": 3, "class": 3}, "one job per kind of captions, each fits all three"
    found = forecast([q.row for q in asked], Store("memory://nothing"))
    assert found.evaluations_asked > found.evaluations_shared > 0
    assert all(line.naive >= line.unique > line.there == 0 < line.jobs for line in found.kinds)


def test_the_axes_are_documented_as_they_are_declared():
    from bench.axes import as_markdown
    from bench.methods import ROOT

    assert (ROOT / "docs" / "axes.md").read_text(encoding="utf-8") == as_markdown(), (
        "python -m bench.axes > docs/axes.md"
    )
