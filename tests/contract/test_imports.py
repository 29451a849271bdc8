"""The direction of the house: lmia never looks up; ray and mlflow have one place each; planning is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*ROOT.glob("lmia/**/*.py"), *ROOT.glob("bench/**/*.py")])


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_direction(path):
    name, packages = str(path.relative_to(ROOT)), imported(path)
    if name.startswith("lmia/"):
        assert not packages & {"bench", "ray", "mlflow"}
    if "ray" in packages:
        assert name.startswith("bench/engine/")
    if "mlflow" in packages:
        assert name.startswith("bench/tracking/")
    assert not packages & {"pickle", "cloudpickle", "joblib"}


def loaded_after(code: str) -> set[str]:
    heavy = ("torch", "ray", "mlflow", "diffusers")
    script = f"import sys\n{code}\nprint(' '.join(m for m in {heavy} if m in sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import lmia, bench",
        "from bench.cli import parser; parser().format_help()",
        "from bench import campaign; from bench.cells import load; campaign.questions(load('tiny'))",
        "from lmia.attacks import ATTACKS; [ATTACKS.get(n).nfe(ATTACKS.get(n).Spec()) for n in ATTACKS.names()]",
        "import lmia.metrics.estimands, lmia.metrics.low_fpr, lmia.metrics.sets",
    ],
)
def test_planning_is_light(code):
    assert loaded_after(code) == set()
