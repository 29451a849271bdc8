"""What the harness does for a Python program; the command line calls the same functions.

    import bench

    done = bench.run("quick", store="store", overrides={"people.A": 16}, runtime={"workers": 2})
    board = bench.leaderboard("quick", store="store")
    found = bench.audit(model="tuned/", base="base/", members="suspected/", nonmembers="others/", out="audit/")

Mistakes in a request are RequestError, before any work; disk, cluster and network fail with InfrastructureError.
A cell or an attack that could not be made is no exception: it stands in `failed` of what is returned, with its reason.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmia.specs import RequestError, explain

if TYPE_CHECKING:
    from bench.audit.result import Result
    from bench.leaderboard.rank import Board
    from bench.workbench import Runtime

STORE = "./store"

Overrides = Mapping[str, Any] | Iterable[str]
"""Settings by dotted path, such as {"people.A": 16}, or as the command line has them: ["people.A=16"]."""
Tell = Callable[[str], None]


def silent(line: str) -> None:
    """Hears what is said on the way and keeps it to itself."""


@dataclass(frozen=True)
class Run:
    """A benchmark's run.

    Attributes:
        name: the campaign, under which its leaderboard is found.
        store: where everything lies.
        board: its rows, joined and ranked.
        failed: titles of cells that could not be made, and why, by their address.
        jobs: jobs done by this run; 0 when nothing was missing.
        seconds: of the jobs.
        page: the HTML leaderboard; None where the store is remote (it lies in it, under leaderboards/).
    """

    name: str
    store: str
    board: "Board"
    failed: dict[str, str]
    jobs: int
    seconds: float
    page: Path | None


def run(
    preset: str,
    *,
    store: str | Path = STORE,
    overrides: Overrides = (),
    runtime: "Runtime | Mapping[str, Any] | None" = None,
    retry: bool = False,
    track: bool = True,
    tell: Tell = silent,
) -> Run:
    """Makes what is missing of a benchmark, writes its rows, and updates MLflow and the leaderboard.

    Args:
        preset: a preset's name or a YAML file.
        store: a folder or s3://...
        overrides: settings of the benchmark that differ.
        runtime: how to run: device, workers, ...; never changes a result.
        retry: try jobs again that were given up.
        track: write to MLflow.
        tell: hears progress, a line at a time.

    Raises:
        RequestError: a mistake in the request.
        InfrastructureError: disk, cluster or network.
    """
    from bench import campaign
    from bench.cells import load
    from bench.events import Event
    from bench.leaderboard.rank import join
    from bench.plan.models import try_models
    from bench.progress import Progress
    from bench.store import Store
    from bench.tracking import CampaignTracker
    from lmia.scratch import remove_left_behind

    remove_left_behind()  # by a run that was killed; this one may need no folder of its own
    settings = _texts(overrides)
    benchmark, how, where = load(preset, settings), runtime_of(runtime), Store(str(store))
    asked = campaign.questions(benchmark, tell)
    try_models([q.row for q in asked], where, {}, tell)
    campaign.record(benchmark, asked, settings, where)
    tracker = CampaignTracker(benchmark.name, asked, where, tell) if track else None
    progress = Progress(how, os.cpu_count() or 1, tell)

    def observe(event: Event) -> None:
        progress(event)
        if tracker:
            tracker.observe(event)

    tell(f"{benchmark.name}: {len(asked)} rows; store {where.uri}")
    outcome = campaign.run(asked, where, how, observe, name=benchmark.name, retry=retry)
    campaign.keep_copies(benchmark.name, asked, where)
    failed = campaign.note_failures(benchmark.name, asked, outcome, where)
    for key in outcome.repaired:
        tell(f"damaged and remade: {key}")
    page = campaign.write_leaderboard(benchmark.name, where)
    if tracker:
        tracker.finish(page)
    titles = {q.row.address: q.cell.title for q in asked}
    return Run(
        name=benchmark.name,
        store=where.uri,
        board=join(*campaign.answers(benchmark.name, where)),
        failed={address: f"{titles[address]} ({address}): {why}" for address, why in failed.items()},
        jobs=outcome.made,
        seconds=outcome.seconds,
        page=page,
    )


def audit(
    *,
    members: str | Path,
    nonmembers: str | Path,
    model: str | Path | None = None,
    base: str | Path | None = None,
    out: str | Path | None = None,
    store: str | Path = STORE,
    runtime: "Runtime | Mapping[str, Any] | None" = None,
    retry: bool = False,
    tell: Tell = silent,
    command: str | None = None,
    **settings: Any,
) -> "Result":
    """Says whether a set of pictures was used to tune a model.

    Args:
        members: folder of the pictures that may have been used.
        nonmembers: folder of pictures of the same kind that were certainly not used.
        model: diffusers folder, pinned hub id, adapter, or a single .safetensors checkpoint; without it `generated`.
        base: the model before tuning.
        out: folder of report.html, report.pdf, metrics.json, scores.parquet, audit.yaml; None writes none.
        store: a folder or s3://...
        runtime: how to run: device, workers, ...; never changes a result.
        retry: try jobs again that were given up.
        tell: hears progress, a line at a time.
        command: the command line that asks, for the report.
        **settings: any other field of `bench.audit.request.Audit`.

    Raises:
        RequestError: a mistake in the request.
        AuditFailed: the pictures could not be taken over, or no attack could be made.
        InfrastructureError: disk, cluster or network.
    """
    from bench.audit import report
    from bench.audit.materials import materials
    from bench.audit.plan import plan
    from bench.audit.request import Audit
    from bench.audit.result import result
    from bench.config import method_spec
    from bench.driver import Driver, revision
    from bench.plan.models import try_models
    from bench.progress import Progress
    from bench.store import Store

    given = {"members": members, "nonmembers": nonmembers, "model": model, "base": base}
    raw = {name: str(value) for name, value in given.items() if value is not None} | settings
    request, how, where = method_spec(Audit, raw, "audit"), runtime_of(runtime), Store(str(store))
    planned = plan(request, tell)
    tell(f"attacks: {', '.join(line.attack for line in planned.lines)}")
    for name, why in planned.left_out.items():
        tell(f"left out: {name}: {why}")
    try_models(planned.artifacts(), where, planned.given_as, tell)
    driver = Driver(where, how, observer=Progress(how, os.cpu_count() or 1, tell), revision=revision())
    digests = materials(request, planned.size)
    outcome = driver.make(planned.artifacts(), retry=retry)
    found = result(planned, where, outcome, digests)
    if out is not None:
        report.write(found, Path(out), command)
    return found


def leaderboard(name: str | None = None, *, store: str | Path = STORE) -> "Board":
    """A campaign's rows from the store alone, joined and ranked.

    Args:
        name: the campaign, or its YAML file; may be left out when the store has only one.
        store: a folder or s3://...

    Raises:
        RequestError: no such campaign on the store.
    """
    from bench import campaign
    from bench.leaderboard.rank import join
    from bench.store import Store

    where = Store(str(store))
    return join(*campaign.answers(campaign.named(name, where), where))


def rebuild_mlflow(name: str | None = None, *, store: str | Path = STORE, tell: Tell = silent) -> str:
    """Writes a campaign to MLflow from the store alone, as far as MLflow lacks it; doing it twice changes nothing.

    Args:
        name: as for `leaderboard`.
        store: a folder or s3://...
        tell: hears what was written, or in one line why MLflow cannot be used.

    Returns:
        The campaign.

    Raises:
        RequestError: no such campaign on the store.
    """
    from bench import campaign
    from bench.benchmark import Benchmark
    from bench.record import CampaignRecord
    from bench.store import Store
    from bench.tracking import CampaignTracker

    where = Store(str(store))
    name = campaign.named(name, where)
    try:
        asked = campaign.questions(Benchmark.model_validate(CampaignRecord.read(name, where).benchmark))
    except (RequestError, ValueError) as error:
        asked = []
        tell(f"MLflow: the cells without their models, since the benchmark cannot be planned here: {error}")
    page = Path(where.root) / "leaderboards" / f"{name}.html" if where.local else None
    done = CampaignTracker(name, asked, where, tell).finish(page, anew=True)
    if done is not None:
        tell(f"MLflow: {done.written} cells written, {done.skipped} were there; {done.models} models written")
    return name


def pull(repository: str) -> tuple[str, Path]:
    """Fetches a model from the hub.

    Args:
        repository: OWNER/NAME, whose newest revision is taken, or OWNER/NAME@REVISION.

    Returns:
        The reference with its revision, and the local folder.
    """
    from bench.store import InfrastructureError
    from lmia.models.files import fetch_from_hub

    name, at, revision = repository.partition("@")
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) or (at and not revision):
        raise RequestError(f"REPOSITORY {repository!r}: expected OWNER/NAME or OWNER/NAME@REVISION, as on the hub")
    if not revision:
        from huggingface_hub import HfApi

        try:
            revision = str(HfApi().model_info(name).sha)
        except Exception as error:
            raise InfrastructureError(f"cannot ask the hub for {name!r}: {error}") from error
    return f"{name}@{revision}", fetch_from_hub(name, revision)


def runtime_of(given: "Runtime | Mapping[str, Any] | None") -> "Runtime":
    """How to run, from plain settings; RequestError names what is wrong with them."""
    from pydantic import ValidationError

    from bench.workbench import Runtime

    if isinstance(given, Runtime):
        return given
    try:
        return Runtime(**(given or {}))
    except ValidationError as error:
        raise explain(error, Runtime, "runtime") from None


def _texts(overrides: Overrides) -> list[str]:
    if isinstance(overrides, Mapping):
        return [f"{path}={json.dumps(value)}" for path, value in overrides.items()]
    return list(overrides)
