"""A raised version moves the address of everything that the method has a part in, and of nothing else."""

import dataclasses

import pytest
from pydantic import BaseModel

from bench.artifacts.artifact import Artifact, walk
from bench.artifacts.pictures import GeneratedSpec, MixSpec, TakeSpec
from bench.artifacts.row import RowSpec
from bench.cells import cells, validate
from bench.config import read
from bench.plan import expand, sets
from lmia.attacks import ATTACKS
from lmia.data.marks import MARKS
from lmia.data.sources import SOURCES
from lmia.finetune.methods import METHODS

REGISTRIES = {"pictures": (SOURCES, MARKS), "model": (METHODS,), "attack": (ATTACKS,)}
REGISTERED = [
    (kind, registry, name)
    for kind, registries in REGISTRIES.items()
    for registry in registries
    for name in registry.names()
]
NOT_PLANNED = ("folder", "imagefolder", "lfw", "none", "rediffuse_vae")
PLAIN = {"generated": GeneratedSpec, "take": TakeSpec, "mix": MixSpec}


def versions() -> dict[tuple[str, str], int]:
    """Version of every registered method: inherited ones move with their parents."""
    return {(kind, name): registry.get(name).version for kind, registry, name in REGISTERED}


def parts(value: object) -> set[tuple[str, str]]:
    """The attacks inside a spec."""
    found = set()
    if isinstance(value, BaseModel):
        if type(value) in [ATTACKS.get(name) for name in ATTACKS.names()]:
            found.add(("attack", type(value).name))
        for _, item in value:
            found |= parts(item)
    if isinstance(value, tuple):
        for item in value:
            found |= parts(item)
    return found


def used(artifact: Artifact) -> set[tuple[str, str]]:
    """What of the registries and plain methods an artifact's own making takes, inputs aside."""
    kind = "attack" if artifact.kind == "scores" else artifact.kind
    return {(kind, artifact.method.removesuffix("_crossfit")), *parts(artifact.spec)}


def planned() -> list[Artifact]:
    """All artifacts of `tiny` with every attack, watermark and fine-tuning method."""
    raw = read("tiny")
    raw["attacks"]["calibrated"] = {"attack": "pia"}  # one nested attack that is not the default, several that are
    attacks = [name for name in ATTACKS.names() if ATTACKS.get(name).role == "attack"]
    raw["grid"] += [
        {"name": "every attack", "axes": {"attack": attacks}},
        {"name": "every mark", "axes": {"target_mark": MARKS.names(), "attack": "loss"}},
        {"name": "every method", "axes": {"method": METHODS.names(), "attack": "loss"}},
    ]
    return list(walk(expand.rows_of(cells(validate(raw, "tiny")))))


@pytest.fixture(scope="module")
def before():
    return [(artifact, artifact.address) for artifact in planned()]


def check(before, moved):
    """The artifacts that use one of `moved`, or are made of one that does, have other addresses, the rest the same."""
    hit: dict[str, bool] = {}
    for artifact, address in before:
        hit[address] = bool(used(artifact) & moved) or any(hit[i.address] for i in artifact.inputs.values())
    after = planned()
    assert len(after) == len(before)
    for (artifact, address), now in zip(before, after, strict=True):
        assert (artifact.kind, artifact.method) == (now.kind, now.method)
        assert (now.address != address) == hit[address], f"{artifact} uses {sorted(used(artifact))}"
    return sum(hit.values())


@pytest.mark.parametrize(("kind", "registry", "name"), REGISTERED, ids=lambda x: x if isinstance(x, str) else "")
def test_a_bumped_method_moves_what_uses_it_and_nothing_else(before, kind, registry, name, monkeypatch):
    known = versions()
    monkeypatch.setattr(registry.get(name), "version", known[kind, name] + 1)
    moved = {key for key, version in versions().items() if version != known[key]}
    assert (kind, name) in moved
    count = check(before, moved)
    assert (count == 0) == (name in NOT_PLANNED)


def test_nested_attacks_are_seen_here(before):
    inside = {artifact.method: used(artifact) for artifact, _ in before if artifact.kind == "scores"}
    assert inside["calibrated"] == {("attack", "calibrated"), ("attack", "pia")}
    assert {name for _, name in inside["combined"]} >= {"combined", "loss", "secmi", "pia", "pian", "sima", "pfami"}


@pytest.mark.parametrize("name", PLAIN)
def test_so_does_a_method_of_no_registry(before, name, monkeypatch):
    monkeypatch.setattr(PLAIN[name], "version", PLAIN[name].version + 1)
    assert check(before, {("pictures", name)}) > 0


def test_so_do_the_estimates_and_the_way_a_base_is_taken_over(before, monkeypatch):
    version = RowSpec.version
    with monkeypatch.context() as patch:
        patch.setattr(RowSpec, "version", version + 1)
        assert check(before, {("row", "estimate")}) == sum(artifact.kind == "row" for artifact, _ in before)
    resolve = sets.resolve_base
    monkeypatch.setattr(sets, "resolve_base", lambda name: dataclasses.replace(resolve(name), version=2))
    assert check(before, {("model", "base")}) > 0
