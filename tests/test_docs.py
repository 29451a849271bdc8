"""What README and docs show is run."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / path).read_text(encoding="utf-8"), flags=re.S)


def test_the_example_of_the_api(capsys):
    (example,) = blocks("docs/api.md", "python")
    assert blocks("README.md", "python") == [example] and len(example.splitlines()) <= 16
    exec(compile(example, "docs/api.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["loss", "pia"]
    assert all(0 <= float(line.split()[1]) <= 1 for line in lines)


@pytest.fixture
def faces(tmp_path):
    """ROOT/SOURCE/PERSON/*.png of three sources, without captions."""
    for number, source in enumerate(("dtu", "aau", "lfw")):
        for person in range(120):
            folder = tmp_path / source / f"p{person:03d}"
            folder.mkdir(parents=True)
            random = np.random.default_rng([number, person])
            for photo in range(2):
                pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).resize((32, 32)).save(folder / f"{photo}.png")
    return tmp_path


def test_the_readme_s_benchmark_can_be_planned(faces, tmp_path, capsys):
    from bench.cli import main

    (benchmark,) = blocks("README.md", "yaml")
    raw = yaml.safe_load(benchmark)
    raw["data"]["root"] = str(faces)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(raw))
    assert main(["plan", str(path)]) == 0, capsys.readouterr().err
    assert "mine: 6 rows" in capsys.readouterr().out
