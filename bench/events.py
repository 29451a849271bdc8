"""What the driver tells while it runs: whoever shows or tracks a campaign observes these."""

from collections.abc import Callable
from dataclasses import dataclass, field

from bench.jobs import Figures, Job, JobStatus


@dataclass
class Outcome:
    """What became of a run.

    Attributes:
        made: number of jobs done by this run.
        failed: reason by address, of artifacts that could not be made (and of targets that hang on them).
        repaired: keys of damaged parts that were found and remade.
        seconds: wall time.
    """

    made: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    repaired: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Wave:
    """Jobs start.

    Attributes:
        jobs: that can be done now.
        remaining: jobs of everything that is still missing, these included.
    """

    jobs: list[Job]
    remaining: list[Job]


@dataclass(frozen=True)
class JobNews:
    """A job tells how far it is."""

    job: Job
    figures: Figures


@dataclass(frozen=True)
class JobDone:
    """A job ended, well or not."""

    job: Job
    status: JobStatus


@dataclass(frozen=True)
class Notice:
    """Something that people should know at once: what is being waited for."""

    text: str


@dataclass(frozen=True)
class End:
    """Nothing is left that could be done."""

    outcome: Outcome


Event = Wave | JobNews | JobDone | Notice | End
Observer = Callable[[Event], None]
