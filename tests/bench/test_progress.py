"""What a person is told while a campaign runs."""

from bench.events import JobDone, Wave
from bench.jobs import Job, JobStatus, Payload
from bench.progress import PRIORS, START_S, Progress, clock
from bench.stages import STAGES
from bench.workbench import Runtime


def job(stage: str, number: int, work: float, executor: str = "data") -> Job:
    return Job(f"{stage}{number}", STAGES[stage], "a job", Payload(()), executor, work)


def done(job: Job, seconds: float) -> JobDone:
    return JobDone(job, JobStatus(job.name, "done", seconds=seconds))


def test_time_left_is_the_priors_at_first_and_what_was_measured_later() -> None:
    jobs = [job("scores", n, 100.0) for n in range(40)]
    progress = Progress(Runtime(), cores=2, tell=lambda _: None)
    progress(Wave(jobs, jobs))
    assert progress.seconds_left() == 4000 * PRIORS["scores"] / 2 + START_S
    first, rest = jobs[0], jobs[1:]
    progress(done(first, 10.0))
    after_a_slow_start = progress.seconds_left()
    assert after_a_slow_start < 3900 * (10.0 / 100) / 2
    for one in rest[:-1]:
        progress(done(one, 2.0))
    assert 0.9 < progress.seconds_left() < 1.3  # one job of two seconds on two cores
    progress(done(rest[-1], 2.0))
    assert progress.seconds_left() == 0


def test_work_of_nothing_and_lines_for_people() -> None:
    said: list[str] = []
    jobs = [job("model", 0, 0.0, "driver"), job("row", 0, 1.0, "driver")]
    progress = Progress(Runtime(), cores=2, tell=said.append)
    progress(Wave(jobs, jobs))
    progress(JobDone(jobs[1], JobStatus(jobs[1].name, "failed", "ValueError: no\nnot a number", 1.0)))
    assert any("failed at: a job: not a number" in line for line in said)
    assert clock(59.6) == "1:00" and clock(3723) == "1:02:03"
