"""A store and a workbench on which stages are called by hand, without Ray, on random weights."""

from collections.abc import Iterable

import pytest

from bench.artifacts.artifact import Artifact
from bench.artifacts.models import given_model, tuned_model
from bench.artifacts.pictures import GeneratedSpec, RealSpec, drawn_set, real_set
from bench.driver import plan_jobs
from bench.jobs import Job
from bench.plan.graph import survey
from bench.stages import STAGES
from bench.store import Entry, InputRef, Manifest, Store
from bench.workbench import Runtime, Workbench
from lmia.data.pictures import Pictures
from lmia.data.sources import SOURCES
from lmia.finetune.methods import METHODS
from lmia.models.sample import SampleSpec
from lmia.resolve import resolve_base

DATA = SOURCES.get("population").Spec(size=32, people=8)
FULL = METHODS.get("full")(lr=1e-3, batch_size=4, warmup_steps=0)


class Desk:
    """Makes artifacts with everything that they are made of, each by its stage's own `make`."""

    def __init__(self, folder):
        self.store = Store(folder / "store")
        self.bench = Workbench(self.store, Runtime(cache=str(folder / "cache")), revision="abc")
        self.told: list = []

    def jobs(self, *artifacts: Artifact) -> list[Job]:
        """What can be made now."""
        state = survey(artifacts, self.store)
        return plan_jobs(state.missing, self.store, state.refs)

    def do(self, job: Job) -> None:
        STAGES[job.stage.kind].make(job.payload, self.bench, self.told.append)
        for ref in job.payload.refs:
            self.store.commit(ref)

    def make(self, *artifacts: Artifact) -> list[Job]:
        """All jobs until the artifacts are there; returns them."""
        done = []
        while jobs := self.jobs(*artifacts):
            for job in jobs:
                self.do(job)
            done += jobs
        return done

    def entry(self, artifact: Artifact) -> Entry:
        (entry,) = self.store.index()[artifact.address]
        return entry

    def manifest(self, artifact: Artifact) -> Manifest:
        return self.store.manifest(self.entry(artifact).key)

    def ref(self, artifact: Artifact) -> InputRef:
        """The artifact as an input of others; made if it is not there."""
        self.make(artifact)
        entry = self.entry(artifact)
        return InputRef(entry.address, entry.digest, entry.key)

    def pictures(self, artifact: Artifact) -> Pictures:
        return self.bench.pictures(self.ref(artifact))


def people(part: str, numbers: Iterable[int], source: str = "north") -> Artifact:
    """Two photos each of some synthetic people."""
    names = SOURCES.get("population").identities(DATA, source)
    spec = RealSpec(data=DATA, source=source, part=part, identities=tuple(names[n] for n in numbers), photos=(0, 1))
    return real_set("population", spec)


MEMBERS, OTHERS = people("A", range(4)), people("B", range(4, 8))
BASE = given_model(resolve_base("random"))


def target(epochs: int = 1) -> Artifact:
    """A model tuned on the members."""
    return tuned_model(FULL, epochs, BASE, MEMBERS)


def drawn(model: Artifact, count: int = 5, most: int = 2, prompt: str = "class", captioned=None) -> Artifact:
    """Pictures that a model draws in two steps."""
    sample = SampleSpec(steps=2, sampler="ddim", batch=2)
    return drawn_set(model, GeneratedSpec(sample=sample, prompt=prompt, source="north", count=count), most, captioned)


@pytest.fixture(scope="package")
def desk(tmp_path_factory):
    return Desk(tmp_path_factory.mktemp("desk"))
