"""Versions belong to methods: code that changed with neither a bump nor an acknowledgement fails here."""

import shutil
import time

import pytest

from bench.methods import ROOT, Method, changed, current, recorded


def test_no_method_changed_silently():
    lines = changed(recorded(), current())
    assert not lines, (
        "\n".join(lines) + "\nraise the version where results change; then `python -m bench.methods --acknowledge`"
    )


def test_change_is_seen():
    old = {"attack/x": Method(1, "a")}
    assert changed(old, {"attack/x": Method(1, "b")}) == ["attack/x: its code changed, its version 1 did not"]
    assert changed(old, {"attack/x": Method(2, "b")}) == ["attack/x: version 1 is now 2"]
    assert changed(old, {"attack/x": Method(1, "a")}) == []


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the sources."""
    root = tmp_path_factory.mktemp("tree")
    for package in ("lmia", "bench"):
        shutil.copytree(ROOT / package, root / package, ignore=lambda _, names: [n for n in names if "." in n[:-3]])
    return root


@pytest.fixture(scope="module")
def before(tree):
    return current(tree)


def with_more(tree, file, line):
    """The methods of a tree while a file of it has one more line."""
    text = (tree / file).read_text(encoding="utf-8")
    try:
        (tree / file).write_text(f"{text}\n{line}\n", encoding="utf-8")
        return current(tree)
    finally:
        (tree / file).write_text(text, encoding="utf-8")


ALL_ATTACKS = {name for name in recorded() if name.startswith("attack/")}
TRAINED = {"model/full", "model/lora"}


@pytest.mark.parametrize(
    ("file", "loud", "silent"),
    [
        ("lmia/attacks/trees.py", {"attack/gsa1", "attack/gsa2"}, {"attack/loss", *TRAINED}),
        ("lmia/attacks/encoders.py", {"attack/generated_set_mean", "attack/generated_set_nearest"}, {"attack/loss"}),
        ("lmia/attacks/loss.py", {"attack/loss"}, {"attack/gsa1", "attack/secmi", *TRAINED}),
        ("lmia/metrics/worlds.py", {"row/estimate"}, ALL_ATTACKS | TRAINED),
        ("lmia/models/families/sd.py", ALL_ATTACKS | TRAINED | {"pictures/generated"}, {"row/estimate"}),
        ("lmia/models/probe.py", ALL_ATTACKS, TRAINED | {"row/estimate", "pictures/generated"}),
        ("lmia/finetune/train.py", TRAINED, ALL_ATTACKS | {"pictures/generated"}),
        ("lmia/data/portrait.py", {"pictures/population"}, ALL_ATTACKS | TRAINED),
        ("lmia/embedded/card.py", set(), set(recorded())),
        ("lmia/metrics/report.py", set(), set(recorded())),
        ("bench/cli.py", set(), set(recorded())),
    ],
)
def test_one_changed_line_is_seen_on_every_path_and_on_no_other(tree, before, file, loud, silent):
    seen = {line.partition(":")[0] for line in changed(before, with_more(tree, file, "OTHER = 2"))}
    assert loud <= seen
    assert not silent & seen


def test_a_comment_is_no_change(tree, before):
    assert with_more(tree, "lmia/data/pictures.py", "# nothing but a comment") == before


def test_the_guard_is_quick():
    started = time.process_time()  # of this process alone: how busy the machine is tells nothing of the guard
    current()
    assert time.process_time() - started < 5
