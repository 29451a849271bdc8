"""The row stage without Ray and without a model: a store with pictures, models and scores goes in, a row comes out."""

import io
import itertools
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bench.artifacts.row import BlindInputs, RowInputs, RowSpec, ScoredInputs, TargetInputs, WorldInputs, flatten
from bench.jobs import Payload
from bench.leaderboard.row import Row, reasons_of
from bench.stages.row import contact_sheet, make
from bench.stages.scores import to_parquet
from bench.store import InputRef, Ref, Store
from bench.workbench import Runtime, Workbench
from lmia.metrics.estimands import crossover_delta
from lmia.metrics.scores import ScoreSet
from lmia.specs import RequestError

AXES = {"attack": "loss", "query": "same_source", "source": "north"}
SPEC = RowSpec(axes=AXES, estimand="same_source", role="ranked", access="eps")
PEOPLE = 12
count = itertools.count()


class Desk:
    """A store to put artifacts on."""

    def __init__(self, folder):
        self.store = Store(folder)

    def put(self, kind, files, inputs=None, facts=None, *, cost=None, numerics="cpu-x/torch-1/attention-sdpa"):
        address = f"{next(count):020x}"
        ref = Ref(kind, address, "made", 1, {}, inputs or {})
        self.store.put_slice(ref, 0, files, facts=facts or {}, numerics=numerics, cost=cost or {})
        manifest = self.store.commit(ref)
        return InputRef(manifest.address, manifest.digest[:12], manifest.key)

    def pictures(self, half, part=0):
        ids = [f"{half}{n}/{part}" for n in range(PEOPLE)]
        table = pa.table({"id": ids, "identity": [f"{half}{n}" for n in range(PEOPLE)]})
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        return self.put("pictures", {"0.parquet": sink.getvalue().to_pybytes()}), ids

    def scores(self, ids, shift, seed, **more):
        values = np.random.default_rng(seed).normal(size=len(ids)) + shift
        return self.put("scores", {"0.parquet": to_parquet(ids, values)}, cost={"nfe": 2.0 * len(ids)}, **more), values


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path / "store")


def question(desk, leak=1.5):
    """One world of twins, with the scores that were put for it: (inputs, {target: (own scores, other half's)})."""
    halves = {half: desk.pictures(half) for half in "ab"}
    targets, values = {}, {}
    for n, (own, other) in enumerate(("ab", "ba")):
        query, ids = halves[own]
        model = desk.put("model", {"x": b"x"}, {"pictures": query}, {"trained_on": ids})
        seen, seen_values = desk.scores(ids, leak, 10 * n)
        unseen, unseen_values = desk.scores(halves[other][1], 0.0, 10 * n + 1)
        losses = [desk.scores(i, shift, 5)[0] for i, shift in ((ids, -0.25), (halves[other][1], -1.0))]
        targets[own] = TargetInputs(
            ScoredInputs(seen, query), ScoredInputs(unseen, halves[other][0]), None, model, *losses
        )
        values[own] = (ids, seen_values, halves[other][1], unseen_values)
    return RowInputs((WorldInputs(targets["a"], targets["b"]),)), values


def make_row(desk, inputs, spec=SPEC):
    ref = Ref("row", "f" * 20, "estimate", RowSpec.version, json.loads(spec.model_dump_json()), flatten(inputs))
    make(Payload((ref,)), Workbench(desk.store, Runtime(), revision="abc"), lambda _: None)
    manifest = desk.store.commit(ref)
    found = {part.name: desk.store.part(manifest, part.name) for part in manifest.parts}
    return Row.from_json(found["row.json"]), json.loads(found["curves.json"]), found


def test_a_row_says_what_was_judged(desk):
    inputs, values = question(desk)
    row, curves, _ = make_row(desk, inputs)
    sets = []
    for own in "ab":
        seen, seen_values, unseen, unseen_values = values[own]
        ids = [*sorted(seen), *sorted(unseen)]
        by_id = dict(zip([*seen, *unseen], [*seen_values, *unseen_values], strict=True))
        member = np.arange(len(ids)) < len(seen)
        sets.append(ScoreSet(ids, np.array([by_id[i] for i in ids]), member, [i.split("/")[0] for i in ids]))
    expected = crossover_delta([tuple(sets)])
    assert row.measured.delta_auc == expected.delta.value
    assert list(row.measured.delta_auc_ci) == expected.delta.interval
    assert row.measured.delta_estimate().lower_bound(0.001) == expected.delta.lower_bound(0.001)
    assert row.status == "ok" and row.measured.worlds == 2 and row.measured.num_identities == 2 * PEOPLE
    assert row.measured.metrics["loss_gap"] == pytest.approx(0.75), "unseen pictures have the higher loss"
    assert reasons_of(row)["base_auc"] == reasons_of(row)["blind_auc"] == "not asked for"
    assert row.cost.nfe == 2.0 and row.provenance.revision == "abc" and row.schema_version == 2
    assert len(row.provenance.scores) == 8
    assert [curve["world"] for curve in curves] == ["half A", "half B"]
    assert curves[0]["scores"] == inputs.worlds[0].a.seen.scores.address
    assert (curves[0]["fpr"][0], curves[0]["tpr"][0], curves[0]["fpr"][-1], curves[0]["tpr"][-1]) == (0, 0, 1, 1)


def test_controls_stand_beside(desk):
    inputs, values = question(desk)
    (world,) = inputs.worlds
    seen, _, unseen, _ = values["a"]
    a = replace(
        world.a,
        seen=replace(world.a.seen, base=desk.scores(seen, 0.0, 20)[0]),
        unseen=replace(world.a.unseen, base=desk.scores(unseen, 0.0, 21)[0]),
    )
    blind = desk.scores([*seen, *unseen], 0.0, 22, numerics="gpu/torch-1")[0]
    row, _, _ = make_row(desk, RowInputs((replace(world, a=a),), BlindInputs(blind)))
    assert 0 < row.measured.base_auc < 1 and row.measured.base_auc_ci and 0 < row.measured.blind_auc < 1
    assert set(row.measured.estimates) == {"delta_auc", "auc", "base_auc", "blind_auc"}
    assert "mixed_numerics" not in row.flags, "a control that never saw the target may run elsewhere"


def test_scores_of_other_machines_are_flagged(desk):
    inputs, values = question(desk)
    (world,) = inputs.worlds
    elsewhere = desk.scores(values["b"][0], 1.0, 3, numerics="gpu/torch-1/attention-sdpa")[0]
    b = replace(world.b, seen=replace(world.b.seen, scores=elsewhere))
    row, _, _ = make_row(desk, RowInputs((replace(world, b=b),)), replace_spec(role="planted", flags=("confounded",)))
    assert row.flags == ["confounded", "mixed_numerics", "planted"]


def replace_spec(**change):
    return SPEC.model_copy(update=change)


def test_membership_is_what_the_model_says(desk):
    inputs, _ = question(desk)
    (world,) = inputs.worlds
    swapped = replace(world.a, model=world.b.model)
    with pytest.raises(RequestError, match="12 pictures are not trained on"):
        make_row(desk, RowInputs((replace(world, a=swapped),)))


def test_persons_are_asked_about_by_photos_that_were_held_back(desk):
    inputs, _ = question(desk)
    (world,) = inputs.worlds
    held = {half: desk.pictures(half, part=1) for half in "ab"}
    targets = {}
    for own, other in ("ab", "ba"):
        sets = [ScoredInputs(desk.scores(held[half][1], 0.0, 1)[0], held[half][0]) for half in (own, other)]
        targets[own] = replace(getattr(world, own), seen=sets[0], unseen=sets[1])
    person = replace_spec(estimand="person", role="reference")
    row, _, _ = make_row(desk, RowInputs((WorldInputs(targets["a"], targets["b"]),)), person)
    assert row.estimand == "person" and row.measured.num_members == PEOPLE
    with pytest.raises(RequestError, match="held-back photos were trained on"):
        make_row(desk, inputs, person)


def test_scores_of_other_pictures_are_refused(desk):
    inputs, values = question(desk)
    (world,) = inputs.worlds
    short = replace(world.a.seen, scores=desk.scores(values["a"][0][1:], 0.0, 1)[0])
    with pytest.raises(RuntimeError, match="11 scores for 12 pictures"):
        make_row(desk, RowInputs((replace(world, a=replace(world.a, seen=short)),)))


def test_a_contact_sheet_shows_every_picture():
    images = np.stack([np.full((32, 32, 3), 20 * n, np.uint8) for n in range(10)])
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(images, columns=4))))
    assert sheet.shape == (96, 128, 3)
    assert [int(sheet[32 * (n // 4) + 16, 32 * (n % 4) + 16, 0]) for n in range(10)] == [20 * n for n in range(10)]
