"""The direction of the house, as `.importlinter` says it; and planning is light."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_contracts_are_kept():
    # In a process of its own: it configures logging, and would silence all loggers for the tests that follow.
    code = (
        "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(cache_dir=None, no_cache=True))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stdout + run.stderr


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
