"""Axes to cells: the points of the grid that a benchmark asks for.

A *cell* is one point of the grid without any seed or half; an axis that does not apply to an attack is null and does
not multiply cells.
"""

import itertools
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from bench.axes import AXES, TARGET_AXES, Axes, Scalar, idle_axes
from bench.benchmark import NOT_OF_A_CELL, Benchmark, Block, Role
from bench.config import merge, override, read
from lmia.metrics.judge import Estimand
from lmia.specs import RequestError, Spec, UnknownName, explain

ESTIMANDS: dict[str, Estimand] = {
    "same_source": "same_source",
    "member_person": "person",
    "other_source": "cross_source",
    "wild": "cross_source",
    "generated": "uncontrolled",
}


class Cell(Spec):
    """One question: a point of the grid under the settings of its block."""

    axes: Axes
    role: Role
    estimand: Estimand
    flags: tuple[str, ...] = ()
    settings: Benchmark
    blocks: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Attack, query and what differs from the benchmark's default, for people."""
        default = self.settings.default.resolved()
        parts = [str(self.axes.attack), str(self.axes.query)]
        parts += [
            f"{k}={v}"
            for k, v in self.axes.resolved().items()
            if v is not None and v != default[k] and k not in ("attack", "query")
        ]
        return " ".join(parts)


def load(preset: str, overrides: Iterable[str] = ()) -> Benchmark:
    """A benchmark from a preset's name or a YAML file, with `a.b=c` overrides, validated as a whole.

    Raises:
        RequestError: unknown preset, key or axis value (with the nearest match), or a value out of bounds.
    """
    raw = read(preset)
    for text in overrides:
        override(raw, text, "people.A=32")
    return validate(raw, preset)


def validate(raw: Mapping[str, Any], where: str) -> Benchmark:
    """The benchmark that plain values describe; RequestError names what is wrong with them."""
    try:
        benchmark = Benchmark(**raw)
    except ValidationError as error:
        raise explain(error, Benchmark, where) from None
    try:
        benchmark.check(where)
        found = cells(benchmark)
        for target in suite(benchmark):
            if not any(all(getattr(cell.axes, axis) == value for axis, value in target.items()) for cell in found):
                raise RequestError(f"{where}: suite: no cell of the grid has the target {target}")
    except RequestError as error:
        raise error if where in str(error) else RequestError(f"{where}: {error}") from None
    return benchmark


def suite(benchmark: Benchmark) -> list[dict[str, Scalar]]:
    """The targets on which attacks are ranked, all of TARGET_AXES each; none if they are not named.

    Raises:
        RequestError: an axis that does not belong to a target.
    """
    default = benchmark.default.resolved()
    for target in benchmark.suite:
        for axis in target:
            if axis not in TARGET_AXES:
                raise UnknownName(f"axis in {benchmark.name}: suite", axis, TARGET_AXES)
    return [{axis: target.get(axis, default[axis]) for axis in TARGET_AXES} for target in benchmark.suite]


def cells(benchmark: Benchmark) -> list[Cell]:
    """Every question of a benchmark once, in the order of its blocks.

    Raises:
        RequestError: an unknown axis or value, with the nearest match.
    """
    found: dict[Hashable, Cell] = {}
    for block in benchmark.grid or (Block(name="default"),):
        where = f"{benchmark.name}: grid block {block.name!r}"
        settings = _settings(benchmark, block, where)
        same = settings.model_dump_json()
        for axis in block.axes:
            if axis not in AXES:
                raise UnknownName(f"axis in {where}", axis, AXES)
        for values in itertools.product(*block.axes.values()):
            chosen = dict(zip(block.axes, values, strict=True))
            cell = _cell(settings, block, chosen, where)
            key = (cell.axes, cell.role, cell.estimand, cell.flags, same)
            known = found.get(key)
            blocks = (*known.blocks, block.name) if known else (block.name,)
            found[key] = cell.model_copy(update={"blocks": blocks})
    return list(found.values())


def _settings(benchmark: Benchmark, block: Block, where: str) -> Benchmark:
    """The benchmark as this block sees it: without grid and names, which are not part of a cell."""
    raw = benchmark.model_dump(exclude_defaults=True, exclude={*NOT_OF_A_CELL})
    raw = merge({**raw, "default": benchmark.default.model_dump()}, block.settings)
    for key in NOT_OF_A_CELL:
        if key in block.settings:
            raise RequestError(f"{where}: settings.{key} cannot be overridden by a block")
    try:
        settings = Benchmark(**raw)
    except ValidationError as error:
        raise explain(error, Benchmark, f"{where}: settings") from None
    if block.settings:
        settings.check(where)
    return settings


def _cell(settings: Benchmark, block: Block, chosen: dict[str, Scalar], where: str) -> Cell:
    try:
        axes = Axes(**{**settings.default.model_dump(), **chosen})
    except ValidationError as error:
        raise explain(error, Axes, where) from None
    _check_values(axes, settings, where)
    axes = axes.model_copy(update=dict.fromkeys(idle_axes(settings.attack(str(axes.attack), where).needs)))
    estimand = ESTIMANDS[str(axes.query)]
    confounded = axes.member_mark != axes.nonmember_mark
    one_state = axes.target_mark not in (None, "none") and axes.member_mark != "both"
    role = block.role
    if role in ("auto", "ranked"):
        sound = estimand == "same_source" and not confounded and not one_state
        if role == "ranked" and not sound:
            raise RequestError(
                f"{where}: role 'ranked' is for same-source queries with matched marks averaged over both states "
                f"(query={axes.query}, target_mark={axes.target_mark}, member_mark={axes.member_mark}, "
                f"nonmember_mark={axes.nonmember_mark})"
            )
        role = "ranked" if sound else "reference"
    return Cell(
        axes=axes,
        role=role,
        estimand=estimand,
        flags=("confounded",) if confounded else (),
        settings=settings,
        blocks=(block.name,),
    )


def _check_values(axes: Axes, settings: Benchmark, where: str) -> None:
    for name, axis in AXES.items():
        value, known = getattr(axes, name), axis.allowed(settings.sources)
        if known is not None and value not in known:
            raise UnknownName(f"{name} in {where}", value, known)
        if value is None:
            raise RequestError(f"{where}: {name} = null: an axis becomes null by itself where it does not apply")
    if "both" in (axes.member_mark, axes.nonmember_mark):
        if axes.member_mark != axes.nonmember_mark:
            raise RequestError(f"{where}: member_mark and nonmember_mark are 'both' together or not at all")
        if axes.target_mark == "none":
            raise RequestError(f"{where}: member_mark = 'both' averages over marked and clean: give a target_mark")
    if axes.query == "member_person" and settings.held_photos < 1:
        raise RequestError(f"{where}: query = 'member_person' needs held_photos >= 1 (it is {settings.held_photos})")
