"""What a store on S3 costs in requests, and what becomes of a run whose requests go wrong."""

import itertools
import json
import os
import random
import statistics
import threading
import uuid

import pytest

from bench.cli import main
from bench.stages import STAGES
from bench.store import Store, address
from bench.store.snapshot import Snapshot, copies_key
from tests.bench import damage_world
from tests.bench.s3_proxy import KINDS, Proxy


@pytest.fixture
def s3_campaign(s3, tmp_path, monkeypatch, capsys):
    """A campaign without Ray on an S3 behind a proxy."""
    monkeypatch.setitem(STAGES, "model", damage_world.MODEL)
    monkeypatch.setitem(STAGES, "scores", damage_world.SCORES)
    monkeypatch.setattr(address, "READ_TIMEOUT_S", 0.5)
    monkeypatch.setattr(address, "ATTEMPTS", 6)
    (tmp_path / "damage.yaml").write_text(damage_world.BENCHMARK)
    with Proxy(os.environ["AWS_ENDPOINT_URL"], hang_s=0.8) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        yield _Campaign(f"{s3}/{uuid.uuid4().hex}", tmp_path, proxy, capsys)


class _Campaign:
    def __init__(self, store, folder, proxy, capsys):
        self.store, self.folder, self.proxy, self.capsys = store, folder, proxy, capsys

    def _call(self, *command):
        before = len(self.proxy.requests)
        status = main([*command, "--store", self.store])
        said = self.capsys.readouterr()
        return status, said, self.proxy.requests[before:]

    def run(self):
        how = ["--no-track", "--runtime", f"cache={self.folder / 'cache'}"]
        return self._call("run", str(self.folder / "damage.yaml"), *how)

    def rows(self):
        status, said, requests = self._call("leaderboard", "damage", "--format", "json")
        assert status == 0, said.err
        told = [{k: v for k, v in row.items() if k not in ("cost", "provenance")} for row in json.loads(said.out)]
        return told, requests


def test_requests_of_a_job_of_a_second_run_and_of_a_leaderboard(s3_campaign):
    attempts = []

    def note(method, path):
        if method == "PUT" and "/attempts/" in path:
            attempts.append((path, len(s3_campaign.proxy.requests) - 1))

    s3_campaign.proxy.fault = note
    status, said, requests = s3_campaign.run()
    assert status == 0, said.err
    # From the first to the last that is of one scoring job alone: it begins after the note that ended the one before.
    ends = [at for (path, at), (before, _) in zip(attempts[1:], attempts, strict=False) if path == before]
    jobs = [requests[start + 1 : end + 1] for start, end in itertools.pairwise(ends)]
    scoring = [job for job in jobs if any(m == "PUT" and "/parts/scores-" in path for m, path in job)]
    assert scoring
    # Beside its inputs, which a worker fetches once.
    own = [[r for r in job if r[0] != "GET" or "list-type" in r[1] or "/attempts/" in r[1]] for job in scoring]
    assert statistics.median(map(len, own)) <= 12, own[-1]
    rows, requests = s3_campaign.rows()
    assert rows and len(requests) <= 15, requests
    status, said, requests = s3_campaign.run()
    assert status == 0 and "nothing was missing" in said.err
    assert len(requests) <= 30, requests
    assert not [path for method, path in requests if method == "HEAD"]


def test_the_copies_are_no_second_truth(s3_campaign):
    """Damaged, truncated, empty, foreign or gone: the rows are the same, and the next run makes them anew."""
    assert s3_campaign.run()[0] == 0
    expected, _ = s3_campaign.rows()
    store, key = Store(s3_campaign.store), copies_key("damage")
    whole, chance = store.read(key), random.Random(0)
    position = chance.randrange(len(whole))
    value = json.loads(whole)
    other = {k: v for k, v in value.items() if k != "check"}
    names = sorted(other["files"])
    other["files"][names[0]], other["files"][names[-1]] = other["files"][names[-1]], other["files"][names[0]]
    damages = [
        whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :],
        whole[: len(whole) // 2],
        b"",
        whole[:100] + bytes(200) + whole[300:],
        whole + b"{}",
        json.dumps(other).encode(),
        json.dumps({"files": {name: {"tag": "", "base64": "!"} for name in names}}).encode(),
        None,
    ]
    for damage in damages:
        store.remove(key) if damage is None else store.write(key, damage)
        assert s3_campaign.rows()[0] == expected
        status, said, _ = s3_campaign.run()
        assert status == 0 and "nothing was missing" in said.err
        assert Snapshot(store, "damage")._copies, "made anew"


def test_rows_that_were_remade_are_read_from_where_they_lie(s3_campaign):
    assert s3_campaign.run()[0] == 0
    store = Store(s3_campaign.store)
    entry = next(e for entries in store.index().values() for e in entries if e.kind == "row")
    value = store.read_json(entry.key)
    value["slices"][0]["node"] = "another-machine"
    store.write_json(entry.key, value)
    now = Snapshot(store, "damage")
    assert now.manifest(entry.key).slices[0].node == "another-machine"
    store.remove(entry.key)
    assert entry.address not in Snapshot(store, "damage").index()
    assert s3_campaign.run()[0] == 0
    assert store.index()[entry.address][0].key == entry.key


def test_one_session_for_all_threads(s3):
    found = []
    threads = [threading.Thread(target=lambda: found.append(Store(f"{s3}/x").fs)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(fs) for fs in found}) == 1


def test_faults_cost_time_and_no_row(s3_campaign):
    """One request in 16 is refused, broken off, cut short or never answered."""
    assert s3_campaign.run()[0] == 0
    expected, _ = s3_campaign.rows()
    chance, lock = random.Random(0), threading.Lock()

    def fault(method, path):
        with lock:
            kind = chance.choice(KINDS) if chance.random() < 1 / 16 else None
            return kind if kind != "short" or method == "GET" else "500"

    s3_campaign.store += "-broken"
    s3_campaign.proxy.fault = fault
    for _ in range(5):
        status, said, _ = s3_campaign.run()
        assert status in (0, 3) and "Traceback" not in said.err, said.err
        if status == 0:
            break
    assert status == 0 and set(s3_campaign.proxy.broken) == set(KINDS)
    s3_campaign.proxy.fault = lambda method, path: None
    assert s3_campaign.rows()[0] == expected


@pytest.mark.parametrize("kind", ["403", "hang", "503", "reset"])
def test_a_store_that_never_answers_well_ends_in_a_line(s3_campaign, kind, monkeypatch):
    monkeypatch.setattr(address, "ATTEMPTS", 2)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", kind)  # a session of its own
    s3_campaign.proxy.fault = lambda method, path: kind
    status, said, requests = s3_campaign.run()
    assert status == 3 and "Traceback" not in said.err
    assert s3_campaign.store in said.err
    if kind == "403":
        assert "credentials" in said.err and "policy" in said.err and len(requests) < 3
