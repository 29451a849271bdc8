"""The loop that makes a graph: survey the store, run what can be made now, repeat until nothing is missing.

Manifests alone decide what is made; running the same command again is the only resume there is. When nothing
is missing, Ray is not started.
"""

import contextlib
import importlib
import os
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench import attempts, interrupts, leases
from bench.artifacts.artifact import Artifact, walk
from bench.events import End, JobDone, JobNews, Notice, Observer, Outcome, Wave
from bench.jobs import Damaged, Executor, Job, JobStatus, News, Stage
from bench.plan.graph import Survey, ref_of, survey
from bench.stages import STAGES
from bench.store import Corrupt, InfrastructureError, Ref, Snapshot, Store
from bench.workbench import Runtime, Workbench
from lmia.specs import RequestError

if TYPE_CHECKING:
    from bench.engine.worker import WorkerSettings

LOOK_S = 2.0
"""How often it is looked whether another run is done with what this one waits for."""
GRACE_S = 3.0
"""How long after a worker's death it is looked whether its node died with it."""


def plan_jobs(
    missing: Iterable[Artifact],
    store: Store | None,
    refs: Mapping[str, Ref] | None = None,
    stages: Mapping[str, Stage[Any]] = STAGES,
) -> list[Job]:
    """Jobs that make the missing artifacts; for those in `refs` ready to run, for the others to tell the work.

    Args:
        missing: artifacts that are not there.
        store: where finished slices are looked up; None plans from scratch.
        refs: artifacts whose inputs are there; None: all, with hypothetical inputs.
        stages: by kind of artifact.
    """
    by_kind: dict[str, list[Artifact]] = defaultdict(list)
    for artifact in missing:
        if refs is None or artifact.address in refs:
            by_kind[artifact.kind].append(artifact)

    def ref(artifact: Artifact) -> Ref:
        return refs[artifact.address] if refs is not None else ref_of(artifact, {})

    def done(one: Ref) -> set[int]:
        return store.slices_done(one) if store is not None and refs is not None else set()

    jobs: list[Job] = []
    for kind, artifacts in by_kind.items():
        jobs += stages[kind].jobs([(a, ref(a)) for a in artifacts], done)
    return sorted(jobs, key=lambda job: job.order)


class Driver:
    """Makes targets in a store, with Ray only when something is missing."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        *,
        observer: Observer = lambda _: None,
        stages: Mapping[str, Stage[Any]] = STAGES,
        revision: str = "",
        max_repairs: int = 3,
        copies: str = "",
    ):
        self.store = store
        self.runtime = runtime
        self.observer = observer
        self.stages = stages
        self.revision = revision
        self.max_repairs = max_repairs
        self.copies = copies
        self.run_name = f"{time.strftime('%Y%m%dT%H%M%S')}-{uuid.uuid4().hex[:6]}"
        self._stack = contextlib.ExitStack()
        self._device: str | None = None
        self._others = leases.Watch(store)
        self._elsewhere: set[str] = set()

    def make(self, targets: list[Artifact], *, retry: bool = False) -> Outcome:
        """Make every target that can be made; what cannot is in the outcome, by reason.

        Args:
            targets: rows, or any other artifacts.
            retry: forget the failed tries of earlier runs first.

        Raises:
            InfrastructureError: disk, network or cluster failed.
            RequestError: a job found a mistake in the request.
            SpecChanged: a default changed without a version bump.
        """
        started, outcome = time.monotonic(), Outcome()
        first = Snapshot(self.store, self.copies)
        also = self._damaged(targets, first, outcome)
        seen = None if outcome.repaired else first
        repairs, reset, is_leased = 0, set[str](), False
        with self._stack:
            while True:
                interrupts.check()
                # One listing a wave, for all who ask; what a wave has made is in the next one.
                now, seen = seen or Snapshot(self.store), None
                state = survey(targets, now, also)
                jobs = plan_jobs(state.missing, now, state.refs, self.stages)
                if self._complete(state, jobs, now):
                    continue
                if retry:
                    for job in jobs:
                        if job.name not in reset:
                            attempts.reset(self.store, job.name)
                            reset.add(job.name)
                jobs = self._without_quarantined(jobs, outcome)
                if not jobs:
                    break
                if not is_leased:
                    self._stack.enter_context(leases.held(self.store, self.run_name))
                    is_leased = True
                jobs = self._free(jobs)
                if not jobs:
                    continue
                wave = Wave(jobs, self._all_work(state))
                self.observer(wave)
                if self._joins and any(job.executor != "driver" for job in wave.remaining):
                    self._connect()  # a cluster that cannot be used is told before the driver begins to work
                corrupt = self._wave(jobs, outcome)
                if corrupt:
                    repairs += 1
                    if repairs > self.max_repairs:
                        raise InfrastructureError(f"parts keep being damaged in {self.store.uri}: {corrupt[-1].error}")
                    for damaged in [status.damaged for status in corrupt if status.damaged]:
                        self._discard(damaged, outcome)
        self._give_reasons(targets, state, outcome)
        outcome.seconds = time.monotonic() - started
        self.observer(End(outcome))
        return outcome

    def _complete(self, state: Survey, jobs: list[Job], now: Snapshot) -> bool:
        """Write the manifests of artifacts whose slices are all there; whether there were any such.

        So it is when the last worker died before it wrote the manifest, or when a damaged manifest was discarded.
        Where a slice turns out to be damaged, it is there no longer, and the next survey finds a job for it.
        """
        to_do = {address for job in jobs for address in job.artifacts}
        idle = [ref for address, ref in state.refs.items() if address not in to_do]
        whole = [ref for ref in idle if len(now.slices_done(ref)) >= ref.num_slices]
        for ref in whole:
            self.store.commit(ref, content=True)
        return bool(whole)

    # ---- one wave

    def _wave(self, jobs: list[Job], outcome: Outcome) -> list[JobStatus]:
        """Run the jobs of one executor and stage; returns those that found an input damaged.

        What the driver does itself comes first: it is quick and may free more work for the Ray jobs. Then whatever
        more hangs on: an attack that could be fitted already waits for the pictures of the others, so that all are
        one experiment, and a scoring waits for the attacks that are still to be fitted, so that all share one pass.
        """
        from bench.engine.worker import judge

        groups: dict[tuple[Executor, str], list[Job]] = defaultdict(list)
        for job in jobs:
            groups[job.executor, "" if job.executor == "driver" else job.stage.name].append(job)
        executor, _ = chosen = min(groups, key=lambda k: (k[0] != "driver", min(job.order[:1] for job in groups[k])))
        batch = groups[chosen]
        named = {job.name: job for job in batch}
        corrupt: list[JobStatus] = []
        waiting = dict(named)
        try:
            for status in self._statuses(executor, batch):
                job = named[status.name]
                if isinstance(status, News):
                    self.observer(JobNews(job, status.figures))
                    continue
                waiting.pop(job.name, None)
                if status.state == "crashed":
                    self._note_crash(job, status)
                self.observer(JobDone(job, status))
                if status.state == "done":
                    outcome.made += 1
                elif status.state == "corrupt":
                    corrupt.append(status)
                elif status.state == "infrastructure":
                    raise InfrastructureError(f"{job.title}: {status.error}")
                elif status.state == "refused":
                    raise RequestError(f"{job.title}: {status.error}")
                elif status.state == "elsewhere":
                    self._elsewhere.add(job.name)
            for name in self._tried(waiting):  # workers that ended without a word
                judge(self.store, name, self.run_name)
        except (KeyboardInterrupt, InfrastructureError, RequestError) as error:
            with contextlib.suppress(InfrastructureError):
                for name in self._tried(waiting):
                    attempts.interrupt(self.store, name, self.run_name, str(error) or type(error).__name__)
            raise
        return corrupt

    def _statuses(self, executor: Executor, jobs: Sequence[Job]) -> Iterator[News | JobStatus]:
        from bench.engine import watch
        from bench.engine.worker import WorkerSettings, run_job

        if executor == "driver":
            bench = Workbench(self.store, self.runtime, "cpu", self.revision)
            yield from (run_job(job, self.run_name, bench) for job in jobs)
            return
        settings = WorkerSettings(self.store.uri, self.runtime, self.run_name, self.revision, self._connect())
        try:
            cluster = watch.Cluster(self.runtime.wait_for_devices_s)
            try:
                yield from watch.watched(self._on_ray(executor, jobs, settings), cluster)
            finally:
                cluster.stop()
        except (InfrastructureError, RequestError):
            raise
        except Exception as error:  # what a job does ends in its status; so this is Ray's own
            last = (str(error).strip().splitlines() or [""])[-1]
            raise InfrastructureError(f"Ray failed under {len(jobs)} jobs: {type(error).__name__}: {last}") from error

    def _on_ray(
        self, executor: Executor, jobs: Sequence[Job], settings: "WorkerSettings"
    ) -> Iterator[News | JobStatus]:
        if executor == "data":
            from bench.engine import data

            yield from data.run_jobs(jobs, settings, self._tell)
            return
        from bench.engine import tune

        # Ray Data takes seconds to import; it is needed next, and this process only waits for trainings.
        threading.Thread(target=importlib.import_module, args=("bench.engine.data",), daemon=True).start()
        shares = jobs[0].stage.shares_gpu
        gpus = self.runtime.gpus_per_attack if shares else self.runtime.gpus_per_training
        yield from tune.run_jobs(jobs, settings, gpus, self._tell)

    @property
    def _joins(self) -> bool:
        return bool(self.runtime.address or os.environ.get("RAY_ADDRESS"))

    def _connect(self) -> str:
        if self._device is None:
            from bench.engine.cluster import connected, device_of_workers

            with interrupts.kept():
                self._stack.enter_context(connected(self.runtime))
            self._device = device_of_workers(self.runtime, self._tell)
        return self._device

    def _tell(self, text: str) -> None:
        self.observer(Notice(text))

    # ---- other runs on this store

    def _free(self, jobs: list[Job]) -> list[Job]:
        """Jobs that no other run is at; none, once another run has ended one of those that had to be waited for."""
        is_told = False
        while True:
            held = [job for job in jobs if job.name in self._elsewhere]
            living = self._others.living(but=self.run_name) if held else set()
            for job in held:
                at_it = {one.run for one in attempts.of(self.store, job.name) if one.state == "running"}
                if not at_it & living:
                    self._elsewhere.discard(job.name)
            free = [job for job in jobs if job.name not in self._elsewhere]
            if free:
                return [] if is_told else free
            if not is_told:
                more = f" and {len(held) - 1} more" if len(held) > 1 else ""
                self._tell(f"another run on this store is at {held[0].title}{more}: waiting for it")
                is_told = True
            time.sleep(LOOK_S)

    def _tried(self, jobs: Iterable[str]) -> list[str]:
        """Of these jobs those with attempts."""
        tried = set(self.store.names("attempts"))
        return [name for name in jobs if name in tried]

    # ---- what went wrong

    def _note_crash(self, job: Job, status: JobStatus) -> None:
        """A worker died: it counts against its job, unless the node died with it."""
        from bench.engine import watch
        from bench.engine.worker import judge

        time.sleep(GRACE_S)
        cluster = watch.Cluster(self.runtime.wait_for_devices_s)
        cluster.stop()
        if why := cluster.trouble():
            raise InfrastructureError(f"{why}; the same command goes on from here")
        if attempts.running(self.store, job.name, self.run_name):
            judge(self.store, job.name, self.run_name)
        else:  # it died before it could note that it began
            attempts.end(
                self.store, attempts.begin(self.store, job.name, job.title, self.run_name), "failed", status.error
            )

    def _without_quarantined(self, jobs: list[Job], outcome: Outcome) -> list[Job]:
        """Jobs that may still be tried; the reasons of the others go into the outcome."""
        tried = set(self.store.names("attempts")) if jobs else set()
        left = []
        for job in jobs:
            failures = attempts.failures(self.store, job.name) if job.name in tried else []
            if len(failures) < attempts.MAX_ATTEMPTS:
                left.append(job)
                continue
            for address in job.artifacts:
                outcome.failed[address] = f"{job.title}: {attempts.reason(failures)}"
        return left

    def _damaged(self, targets: list[Artifact], now: Snapshot, outcome: Outcome) -> list[Artifact]:
        """Check the finished parts of the graph; damaged ones are forgotten and their artifacts made anew."""
        check = self.runtime.verify
        content = check == "content" or (check == "auto" and self.store.local)
        graph, index, damaged = list(walk(targets)), now.index(), []
        for artifact in graph:
            for entry in index.get(artifact.address, []):
                try:
                    manifest = now.manifest(entry.key)
                    bad = now.verify(manifest, content=content)
                except FileNotFoundError:  # another run remade it just now
                    continue
                except Corrupt as error:
                    self._discard(Damaged(error.manifest, error.part), outcome)
                    damaged.append(artifact)
                    continue
                if bad:
                    self.store.discard(manifest, bad)
                    outcome.repaired += [part.key for part in bad]
                    damaged.append(artifact)
        return damaged

    def _discard(self, damaged: Damaged, outcome: Outcome) -> None:
        self.store.discard_damaged(damaged.manifest, damaged.part)
        outcome.repaired.append(damaged.part or damaged.manifest)

    def _give_reasons(self, targets: list[Artifact], state: Survey, outcome: Outcome) -> None:
        """Give each target that is missing the reason of what it hangs on."""
        missing = {a.address for a in state.missing}
        for artifact in walk(targets):
            if artifact.address not in missing or artifact.address in outcome.failed:
                continue
            causes = [outcome.failed[i.address] for i in artifact.inputs.values() if i.address in outcome.failed]
            if causes:
                outcome.failed[artifact.address] = causes[0]
            else:
                outcome.failed[artifact.address] = f"{artifact} could not be made: no job for it"
        done = set(state.done)
        outcome.failed = {address: why for address, why in outcome.failed.items() if address not in done}

    def _all_work(self, state: Survey) -> list[Job]:
        """The jobs of everything that is still needed, ready or not: what the time left is told from."""
        return plan_jobs(state.missing, None, None, self.stages)


def revision() -> str:
    """The code's git revision with a mark for uncommitted changes, or the package's version outside a checkout."""
    import subprocess
    from pathlib import Path

    from lmia import __version__

    root = Path(__file__).resolve().parent.parent
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return os.environ.get("LMIA_REVISION", __version__)
    return run.stdout.strip()
