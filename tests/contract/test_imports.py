"""The direction of the house, as `.importlinter` says it; and planning is light."""

import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[2]


def test_contracts_are_kept(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert lint_imports(cache_dir=None, no_cache=True) == 0


def loaded_after(code: str) -> set[str]:
    heavy = ("torch", "ray", "mlflow", "diffusers")
    script = f"import sys\n{code}\nprint(' '.join(m for m in {heavy} if m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import lmia, bench",
        "import bench.cli, contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()): bench.cli.main(['--help'])",
        "from bench import campaign; from bench.cells import load; campaign.questions(load('tiny'))",
        "from lmia.attacks import ATTACKS; [ATTACKS.get(n)().nfe for n in ATTACKS.names()]",
        "import lmia.metrics.estimands, lmia.metrics.low_fpr, lmia.metrics.sets",
    ],
)
def test_planning_is_light(code):
    assert loaded_after(code) == set()
