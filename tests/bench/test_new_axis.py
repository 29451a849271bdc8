"""An axis is one declaration: a copy of the sources with one more field shows it everywhere."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from bench.methods import ROOT

DECLARED = """
    defence: Annotated[
        str | None,
        Axis("defence of the target", "target", "open", "what protects the target", ("open", "noise", "clipped")),
    ] = None
"""
SCRIPT = """
import json, sys
from pathlib import Path
import fake_rows
from bench.axes import TARGET_AXES
from bench.cells import cells, validate
from bench.config import read
from bench.leaderboard.rank import Campaign, join
from bench.leaderboard.render import render
from bench.plan.expand import rows_of
from bench.tracking import Tracker
from lmia.specs import RequestError

out, grid = Path(sys.argv[1]), [{"name": "defences", "axes": {"attack": "loss", "defence": ["open", "noise"]}}]
asked = cells(validate({**read("tiny"), "grid": grid}, "tiny"))
rows = [fake_rows.one(f"c{n}", cell.axes.model_dump(), 0.6 + n / 10) for n, cell in enumerate(asked)]
board = join(rows, {}, Campaign("defences"))
try:
    validate({**read("tiny"), "default": {"defence": "nois"}}, "tiny")
except RequestError as error:
    message = str(error)
done = Tracker(out / "store").sync(rows, {}, Campaign("defences"))
tracker = Tracker(out / "store")
experiment = tracker.database.client.get_experiment_by_name("lmia/defences")
runs = tracker.database.client.search_runs([experiment.experiment_id], "tags.`lmia.kind` = 'cell'")
print(json.dumps({
    "titles": [cell.title for cell in asked],
    "addresses": [row.address for row in rows_of(asked)],
    "varying": board.varying,
    "targets": len(board.suite),
    "target_axes": TARGET_AXES,
    "message": message,
    "params": sorted(run.data.params["defence"] for run in runs),
    "columns": json.loads(experiment.tags["mlflow.sharedViewState.leaderboard"])["selectedColumns"],
    **{form: render(rows, {}, Campaign("defences"), form) for form in ("table", "html", "csv", "json", "md", "latex")},
}))
"""


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What the harness of a copy with a new axis says of two cells that differ in it."""
    root = tmp_path_factory.mktemp("axis")
    for package in ("lmia", "bench"):
        shutil.copytree(ROOT / package, root / package)
    shutil.copy(ROOT / "tests/bench/leaderboard/fake_rows.py", root)
    axes = root / "bench" / "axes.py"
    text = axes.read_text(encoding="utf-8")
    at = text.index("\n    @classmethod\n    def usual")
    axes.write_text(text[:at] + DECLARED + text[at:], encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(root)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_it_multiplies_cells_and_is_checked(shown):
    assert shown["titles"] == ["loss same_source", "loss same_source defence=noise"]
    assert len(set(shown["addresses"])) == 2
    assert "unknown defence in tiny" in shown["message"] and "did you mean 'noise'" in shown["message"]


def test_it_belongs_to_the_target(shown):
    assert shown["target_axes"][-1] == "defence" and shown["varying"] == ["defence"]
    assert shown["targets"] == 2, "one attack on two targets"


@pytest.mark.parametrize("form", ["table", "md", "latex"])
def test_text_tables_name_it(shown, form):
    assert "defence of the target noise" in shown[form].replace("\\", "").replace("\n", " ")


def test_the_page_has_it_as_a_setting_and_a_filter(shown):
    assert '<select name="defence"' in shown["html"]
    assert "Defence of the target" in shown["html"] and "defence of the target" in shown["html"]


def test_it_is_a_column_of_csv_and_a_key_of_json(shown):
    head, *lines = shown["csv"].splitlines()
    at = head.split(",").index("defence")
    assert sorted(line.split(",")[at] for line in lines) == ["noise", "open"]
    assert sorted(row["axes"]["defence"] for row in json.loads(shown["json"])) == ["noise", "open"]


def test_mlflow_has_it_as_a_param_and_a_column(shown):
    assert shown["params"] == ["noise", "open"]
    assert "params.`defence`" in shown["columns"]
