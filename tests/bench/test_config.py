"""Plain values: presets that extend each other, merging and overriding."""

import pytest

from bench.cells import load
from bench.config import merge
from lmia.specs import RequestError


def test_file_extends_preset_and_overrides_win(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: tiny\nname: mine\npictures: 8\n")
    (tmp_path / "more.yaml").write_text("extends: mine.yaml\nname: more\ndefault: {steps: 3}\n")
    benchmark = load(str(tmp_path / "more.yaml"), ["pictures=4", "people.aux=7"])
    assert (benchmark.name, benchmark.pictures, benchmark.default.steps) == ("more", 4, 3)
    assert benchmark.people == {"A": 5, "B": 5, "C": 5, "aux": 7, "query": 5}
    told = load("tiny")
    mine = load(str(tmp_path / "mine.yaml"))
    assert told.title and (mine.title, mine.description) == ("", ""), "tiny's title is not true of mine"
    (tmp_path / "loop.yaml").write_text("extends: loop.yaml\n")
    with pytest.raises(RequestError, match="extends itself"):
        load(str(tmp_path / "loop.yaml"))


def test_merge_replaces_lists_and_merges_mappings():
    assert merge({"a": {"b": 1, "c": [1]}, "d": 1}, {"a": {"c": [2]}}) == {"a": {"b": 1, "c": [2]}, "d": 1}
    below = {"data": {"kind": "population", "people": 9}}
    assert merge(below, {"data": {"size": 32}}) == {"data": {"kind": "population", "people": 9, "size": 32}}
    assert merge(below, {"data": {"kind": "folder", "root": "x"}}) == {"data": {"kind": "folder", "root": "x"}}
