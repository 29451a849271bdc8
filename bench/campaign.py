"""A benchmark's run from request to leaderboard, and its answers read back from the store."""

import contextlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.artifacts import learned
from bench.artifacts import models as model_artifacts
from bench.artifacts.artifact import Artifact, walk
from bench.axes import idle_axes
from bench.benchmark import Benchmark
from bench.cells import Cell, cells, suite
from bench.config import read
from bench.driver import Driver, revision
from bench.events import Observer, Outcome
from bench.leaderboard.attachments import Attachments, Curve, ModelRef
from bench.leaderboard.rank import Campaign
from bench.leaderboard.row import Row
from bench.plan.expand import rows_of
from bench.record import CampaignRecord, CellRecord, campaign_names
from bench.store import Corrupt, Damaged, Entry, InfrastructureError, Part, Snapshot, Store, parse
from bench.workbench import Runtime
from lmia.data.captions import class_prompt
from lmia.data.sources import SOURCES
from lmia.specs import RequestError


@dataclass(frozen=True)
class Question:
    """A cell with the row that answers it."""

    cell: Cell
    row: Artifact


def questions(benchmark: Benchmark, tell: Callable[[str], None] = lambda _: None) -> list[Question]:
    """The cells of a benchmark with their rows; cells that differ in nothing that counts share one.

    `tell` hears what of the data is left out.

    Raises:
        RequestError: the data cannot answer the benchmark's questions.
    """
    kind, data = benchmark.data_source()
    for line in SOURCES.get(kind).check(data):
        tell(line)
    benchmark = with_class_prompts(benchmark, tell)
    asked, found = cells(benchmark), dict[str, Question]()
    for cell, row in zip(asked, rows_of(asked, tell), strict=True):
        found.setdefault(row.address, Question(cell, row))
    return list(found.values())


def with_class_prompts(benchmark: Benchmark, tell: Callable[[str], None] = lambda _: None) -> Benchmark:
    """A benchmark whose pictures have no captions takes the class prompt, unless one of its cells asks for captions.

    Asked for are captions by a block with an axis `captions` or the prompt `caption`, and by `finetune.caption`.
    """
    kind, data = benchmark.data_source()
    source, axes = SOURCES.get(kind), [block.axes for block in benchmark.grid]
    if any("captions" in each or "caption" in each.get("prompt", []) for each in axes):
        return benchmark
    first = str(benchmark.default.source)
    names = [first, benchmark.sources.other(first)]
    names += [benchmark.sources.wild] if any("wild" in each.get("query", []) for each in axes) else []
    bare = [name for name in dict.fromkeys(names) if source.uncaptioned(data, name)]
    if not bare or benchmark.default.prompt == "caption":
        return benchmark
    changed: dict[str, Any] = {}
    if "caption" not in benchmark.finetune:
        changed["finetune"] = {**benchmark.finetune, "caption": "class"}
    if benchmark.default.captions == "caption":
        changed["default"] = benchmark.default.model_copy(update={"captions": "class"})
    if changed:
        told = ", ".join(f"{name!r}" for name in bare)
        tell(
            f"pictures of {told} have no captions: models are tuned and asked with one class prompt a source, such as "
            f"{class_prompt(bare[0])!r} (finetune.caption, default.captions = class)"
        )
    return benchmark.model_copy(update=changed)


def record(benchmark: Benchmark, asked: list[Question], overrides: list[str], store: Store) -> None:
    """Keep what was asked: the resolved benchmark, its overrides and its cells, under the benchmark's name."""
    benchmark = with_class_prompts(benchmark)
    idle = idle_axes(benchmark.attack(str(benchmark.default.attack)).needs)
    CampaignRecord(
        name=benchmark.name,
        title=benchmark.title,
        description=benchmark.description,
        default={axis: value for axis, value in benchmark.default.resolved().items() if axis not in idle},
        suite=tuple(suite(benchmark)),
        overrides=tuple(overrides),
        benchmark=benchmark.resolved(),
        revision=revision(),
        asked_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        cells=tuple(
            CellRecord(
                cell=q.row.address,
                axes={axis: value for axis, value in q.cell.axes.resolved().items() if value is not None},
                estimand=q.cell.estimand,
                role=q.cell.role,
                flags=q.cell.flags,
                blocks=q.cell.blocks,
                title=q.cell.title,
                evidence=q.row.spec.evidence,
                access=q.row.spec.access,
                shadow=q.row.spec.shadow,
            )
            for q in asked
        ),
    ).write(store)


def run(
    asked: list[Question], store: Store, runtime: Runtime, observer: Observer, *, name: str = "", retry: bool = False
) -> Outcome:
    """Make every row that can be made; `name` is the campaign's."""
    driver = Driver(store, runtime, observer=observer, revision=revision(), copies=name)
    return driver.make([q.row for q in asked], retry=retry)


def note_failures(name: str, asked: list[Question], outcome: Outcome, store: Store) -> dict[str, str]:
    """Keep the reasons of failed cells in the campaign's record, for whoever renders it later."""
    failed = {q.row.address: outcome.failed[q.row.address] for q in asked if q.row.address in outcome.failed}
    if failed:  # the record is new, and knows of none
        CampaignRecord.read(name, store).model_copy(update={"failed": failed}).write(store)
    return failed


def named(name: str | None, store: Store) -> str:
    """The campaign meant by a name, by its YAML file, or by nothing on a store that has only one.

    Raises:
        RequestError: nothing was said, and the store has none or several.
    """
    if name is not None:
        return str(read(name)["name"]) if name.endswith((".yaml", ".yml")) else name
    names = campaign_names(store)
    if len(names) != 1:
        raise RequestError(f"which campaign? On the store {store.uri} there are: {', '.join(names) or 'none'}")
    return names[0]


def answers(name: str, store: Store) -> tuple[list[Row], dict[str, Attachments], Campaign]:
    """Rows of a campaign from the store alone, with what is shown beside them; cells not made as failed or waiting.

    Raises:
        RequestError: no such campaign on this store.
        InfrastructureError: its record or a row is damaged.
    """
    try:
        return _answers(CampaignRecord.read(name, store), store)
    except Damaged as error:
        raise InfrastructureError(f"store {store.uri}: {error}; `lmia run {name}` makes it anew") from None


def _answers(asked: CampaignRecord, store: Store) -> tuple[list[Row], dict[str, Attachments], Campaign]:
    store = Snapshot(store, asked.name)
    index, rows, attachments = store.index(), [], {}
    for cell in asked.cells:
        entries = index.get(cell.cell)
        answer = _read(store, entries[-1], cell) if entries else None
        if answer:
            row, beside = answer
        else:
            row, beside = _unmade(cell, asked.failed.get(cell.cell)), Attachments()
        rows.append(row)
        attachments[row.cell] = beside
    campaign = Campaign(
        name=asked.name,
        title=asked.title,
        description=asked.description,
        default=asked.default,
        cells=frozenset(cell.cell for cell in asked.cells),
        suite=asked.suite or None,
    )
    return rows, attachments, campaign


def _read(store: Store, entry: Entry, cell: CellRecord) -> tuple[Row, Attachments] | None:
    """A cell's row with what is shown beside it; None when another run has removed it since it was listed."""
    try:
        manifest = store.manifest(entry.key)
        row = Row.from_json(store.part(manifest, "row.json"))
        curves = parse(tuple[Curve, ...], store.part(manifest, "curves.json"))
        if row.cell != cell.cell:
            raise ValueError(f"it holds the row of {row.cell}")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError) as error:  # its bytes are what was written: it was not we who wrote them
        raise InfrastructureError(
            f"store {store.uri}: {entry.key} is no row ({error}): remove it, and run again"
        ) from None
    sheet = next((store.part_bytes(manifest, p) for p in manifest.parts if p.name == "sheet.png"), None)
    axes = row.axes
    mark = f", {axes.target_mark} mark" if axes.target_mark not in (None, "none") else ""
    drawn = (
        f"{axes.source}{mark}, {axes.epochs} epochs; guidance {axes.guidance}, {axes.prompt} prompt, {axes.steps} steps"
    )
    return row, Attachments(
        curves=curves,
        sheet=sheet,
        sheet_title=f"drawn by the target ({drawn})" if sheet else None,
        access=cell.access,
        shadow=cell.shadow or "none",
    )


def _unmade(cell: CellRecord, why: str | None) -> Row:
    """A failed row where it is known why the cell has none, else a waiting one."""
    return Row.of(
        {
            "cell": cell.cell,
            "axes": cell.axes,
            "estimand": cell.estimand,
            "role": cell.role,
            "status": "failed" if why else "waiting",
            "flags": cell.flags,
            "reason": why or "not made yet",
            "provenance": {"evidence": cell.evidence},
        }
    )


def keep_copies(name: str, asked: list[Question], store: Store) -> None:
    """Keep what the campaign's readers need of many small files in one object, where the store is remote."""
    if store.local:
        return
    now = Snapshot(store, name)
    index = now.index()
    manifests: list[str] = []
    parts: list[Part] = []
    for artifact in walk(q.row for q in asked):
        for entry in index.get(artifact.address, []):
            with contextlib.suppress(FileNotFoundError, Corrupt):
                manifest = now.manifest(entry.key)
                manifests.append(entry.key)
                parts += manifest.parts if artifact.kind == "row" else ()
    now.write_copies(name, manifests, parts)


def models(asked: list[Question], store: Store, name: str = "") -> list[ModelRef]:
    """Targets and attack models of a campaign that are there, for tracking: addresses, never weights."""
    store = Snapshot(store, name)
    index, found = store.index(), {}
    for artifact in walk(q.row for q in asked):
        entries = index.get(artifact.address)
        if artifact.kind not in ("model", "attack") or not entries or artifact.address in found:
            continue
        try:
            manifest = store.manifest(entries[-1].key)
        except (FileNotFoundError, Corrupt):  # removed since, or for the next run to find
            continue
        figures = manifest.facts.get("figures", {})
        found[artifact.address] = ModelRef(
            address=artifact.address,
            name=model_name(artifact),
            kind=artifact.kind,
            uri=f"{store.uri.rstrip('/')}/parts/{artifact.kind}-{artifact.address}",
            params={k: v for k, v in flat(artifact.spec.resolved()).items() if v is not None},
            metrics={k: float(v) for k, v in figures.items() if isinstance(v, int | float)},
        )
    return list(found.values())


def model_name(artifact: Artifact) -> str:
    """A model's name for people and for tracking."""
    if artifact.kind == model_artifacts.KIND:
        return model_artifacts.title(artifact)
    return f"{artifact.method}: {learned.title(artifact)}"


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested plain values with dotted keys; lists as text."""
    found: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, dict):
            found |= flat(item, f"{prefix}{key}.")
        else:
            found[prefix + key] = item if isinstance(item, str | int | float | bool | None) else json.dumps(item)
    return found


def write_leaderboard(name: str, store: Store) -> Path | None:
    """The campaign's HTML leaderboard beside the store (or in it, where the store is remote)."""
    from bench.leaderboard.render import render

    rows, attachments, campaign = answers(name, store)
    if store.local:
        out = Path(store.root) / "leaderboards" / f"{name}.html"
        out.parent.mkdir(parents=True, exist_ok=True)
        render(rows, attachments, campaign, "html", out)
        return out
    store.write(f"leaderboards/{name}.html", str(render(rows, attachments, campaign, "html", None)).encode())
    return None


def rows_digest(rows: Iterable[Row]) -> str:
    """Digest of what rows say, to know whether tracking has seen them."""
    import hashlib

    return hashlib.sha256("\n".join(row.to_json() for row in rows).encode()).hexdigest()[:16]
