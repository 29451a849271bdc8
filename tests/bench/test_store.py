"""The store's contract, on a folder, in memory and on an S3: whole or not there, equal for whoever writes."""

import hashlib
import os
import subprocess
import sys
import textwrap
import time
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.jobs import JobOrder
from bench.stages import STAGES
from bench.stages.model import TuningPayload
from bench.store import (
    Cache,
    Corrupt,
    Damaged,
    Entry,
    InfrastructureError,
    InputRef,
    Ref,
    Store,
    manifest_key,
    slice_name,
)
from tests.bench.conftest import ROOT


@pytest.fixture(params=["folder", "memory", "s3"])
def store(request, tmp_path):
    if request.param == "folder":
        return Store(tmp_path / "store")
    if request.param == "memory":
        return Store(f"memory://{uuid.uuid4().hex}")
    return Store(f"{request.getfixturevalue('s3')}/{uuid.uuid4().hex}")


def ref(num_slices=2, digest="d" * 12, address="c0ffee", **spec) -> Ref:
    inputs = {"base": InputRef("ab12", digest, "manifests/model-ab12.0.0.0.json")}
    return Ref("pictures", address, "generated", 1, {"seed": 0, **spec}, inputs, num_slices)


def make(store, one, texts=(b"first", b"second")):
    for number, text in enumerate(texts):
        store.put_slice(one, number, {f"{number}.txt": text}, facts={"of": 2}, numerics="test", cost={"seconds": 1.5})
    return store.commit(one)


def keys(store):
    found = store.fs.find(store.root)
    return sorted(str(name).split(store.root, 1)[-1].strip("/") for name in found)


def test_an_artifact_is_there_once_all_slices_are(store):
    one = ref()
    assert store.index() == {}
    assert store.commit(one) is None
    store.put_slice(one, 1, {"1.txt": b"second"}, facts={"of": 2})
    assert store.slices_done(one) == {1}
    assert store.commit(one) is None
    assert store.index() == {}
    manifest = make(store, one)
    (entry,) = store.index()["c0ffee"]
    assert (entry.kind, entry.spec, entry.inputs) == ("pictures", one.spec_digest, one.inputs_digest)
    assert manifest == store.manifest(entry.key)
    assert manifest.digest.startswith(entry.digest)
    assert [part.name for part in manifest.parts] == ["0.txt", "1.txt"]
    assert [store.part(manifest, name) for name in ("0.txt", "1.txt")] == [b"first", b"second"]
    assert manifest.inputs == {"base": {"address": "ab12", "digest": "d" * 12}}
    assert (manifest.facts, manifest.numerics, manifest.total("seconds")) == ({"of": 2}, ["test"], 3.0)
    assert store.verify(manifest, content=True) == []
    with pytest.raises(KeyError, match="no part '2"):
        store.part(manifest, "2.txt")


def test_parts_are_named_by_their_content_and_written_once(store):
    make(store, ref())
    before = keys(store)
    parts = [key for key in before if key.endswith(".txt")]
    for key, data in zip(parts, (b"first", b"second"), strict=True):
        assert hashlib.sha256(data).hexdigest() in key
    make(store, ref())
    assert keys(store) == before


def test_other_bits_replace_the_manifest_and_other_inputs_are_told_apart(store):
    first = make(store, ref())
    second = make(store, ref(), (b"first", b"other"))
    assert [e.key for e in store.index()["c0ffee"]] == [second.key]
    assert first.digest != second.digest
    other = ref(digest="e" * 12)
    assert store.slices_done(other) == set(), "made from other inputs: not these slices"
    assert store.slices_done(ref(num_slices=3)) == set()
    assert store.slices_done(ref(seed=1)) == set()
    third = make(store, other)
    assert [e.inputs for e in store.index()["c0ffee"]] == [other.inputs_digest]
    assert third.digest == first.digest


@pytest.mark.parametrize("damage", ["bytes", "size", "gone"])
def test_damage_is_found_and_costs_only_its_slice(store, damage):
    one = ref()
    manifest = make(store, one)
    part = manifest.parts[1]
    if damage == "gone":
        store.remove(part.key)
    else:
        store.write(part.key, b"sEcond" if damage == "bytes" else b"longer than before")
    assert store.verify(manifest, content=True) == [part]
    assert store.verify(manifest, content=False) == ([] if damage == "bytes" else [part])
    with pytest.raises(Corrupt) as caught:
        store.part(manifest, "1.txt")
    assert (caught.value.manifest, caught.value.part) == (manifest.key, part.key)
    store.discard(manifest, [part])
    assert store.index() == {}
    assert store.slices_done(one) == {0}
    assert make(store, one) is not None
    assert store.part(store.manifest(manifest.key), "1.txt") == b"second"


def test_cache_holds_whole_artifacts_and_nothing_damaged(store, tmp_path):
    cache, manifest = Cache(tmp_path / "cache"), make(store, ref())
    folder = cache.fetch(store, manifest)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {"0.txt": b"first", "1.txt": b"second"}
    store.write(manifest.parts[0].key, b"xxxxx")
    assert cache.fetch(store, manifest) == folder, "fetched once"
    with pytest.raises(Corrupt):
        Cache(tmp_path / "other").fetch(store, manifest)
    assert list((tmp_path / "other").iterdir()) == []


def test_cache_is_bounded_and_the_least_recently_used_goes_first(tmp_path):
    store, folders = Store(tmp_path / "store"), []
    cache = Cache(tmp_path / "cache", max_bytes=2500)
    for number in range(4):
        one = Ref("model", f"{number:06x}", "base", 1, {}, {})
        store.put_slice(one, 0, {"unet/weights.bin": bytes([number]) * 1000})
        folders.append(cache.fetch(store, store.commit(one)))
        if number < 3:  # used long ago, the first one most recently
            past = time.time() - 7200 - 60 * (number if number else -1)
            os.utime(folders[-1], (past, past))
    assert [folder.is_dir() for folder in folders] == [True, False, False, True]
    assert (folders[0] / "unet" / "weights.bin").read_bytes() == bytes(1000)


def test_cache_keeps_what_may_be_in_use(tmp_path):
    store, cache = Store(tmp_path / "store"), Cache(tmp_path / "cache", max_bytes=100)
    for number in range(3):
        one = Ref("model", f"{number:06x}", "base", 1, {}, {})
        store.put_slice(one, 0, {"w": bytes(1000)})
        cache.fetch(store, store.commit(one))
    assert len(list(cache.folder.iterdir())) == 3


def test_plain_keys(store):
    store.write_json("campaigns/a.json", {"x": 1})
    assert store.exists("campaigns/a.json")
    assert not store.exists("campaigns/b.json")
    assert store.names("campaigns") == ["a.json"]
    assert store.names("nothing") == []
    assert store.read_json("campaigns/a.json") == {"x": 1}
    store.write_json("campaigns/a.json", {"x": 2})
    assert store.read_json("campaigns/a.json") == {"x": 2}
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.write_json("campaigns/a.json", {"x": float("nan")})
    store.remove("campaigns/a.json")
    store.remove("campaigns/a.json")
    with pytest.raises(FileNotFoundError):
        store.read("campaigns/a.json")


def test_what_the_disk_or_the_network_says_is_an_infrastructure_error(tmp_path, s3, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InfrastructureError, match="cannot write a to the store"):
        Store(tmp_path / "file" / "store").write("a", b"x")
    with pytest.raises(InfrastructureError, match="cannot write a to the store s3://no-such-bucket/x"):
        Store("s3://no-such-bucket/x").write("a", b"x")
    nowhere = Store("s3://lmia-tests/x")
    nowhere.fs = type(nowhere.fs)(endpoint_url="http://127.0.0.1:9", config_kwargs={"retries": {"max_attempts": 0}})
    nowhere.fs.retries = 1
    for attempt in (lambda: nowhere.write("a", b"x"), lambda: nowhere.read("a"), nowhere.index):
        with pytest.raises(InfrastructureError):
            attempt()


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_progress_of_a_training_is_there_again_on_another_node(kind, tmp_path, monkeypatch):
    from bench import workbench

    monkeypatch.setattr(workbench, "SAVE_PARTIAL_S", 0.02)
    store = Store(tmp_path / "store" if kind == "folder" else f"memory://{uuid.uuid4().hex}")

    def node(name):
        return workbench.Workbench(store, workbench.Runtime(cache=str(tmp_path / name)))

    files = {"progress.safetensors": b"step 5", "epoch-2/unet/weights.safetensors": b"w"}
    with pytest.raises(KeyboardInterrupt), node("one").partial("job") as folder:
        for name, data in {**files, "epoch-4.writing/unet/weights.safetensors": b"half"}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        deadline = time.monotonic() + 60
        while kind == "memory" and len(store.under("partial")) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        raise KeyboardInterrupt
    with node("two").partial("job") as folder:
        there = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        assert {k: v for k, v in there.items() if "writing" not in k} == files
        assert kind == "folder" or there == files
    assert store.under("partial") == []
    assert not folder.exists()


WRITER = """
    import os, signal, sys
    from bench.store import Store
    from tests.bench.test_store import make, ref
    if sys.argv[2] == "dies":
        os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)
    print("ready", flush=True)
    sys.stdin.readline()
    for turn in range(20):
        make(Store(sys.argv[1]), ref(address=f"{turn:06x}"), (b"first" * 10000, b"second" * 10000))
"""


def writer(folder, how):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(folder), how],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_on_one_store_write_what_one_writes(tmp_path):
    both = [writer(tmp_path / "two", "lives") for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    for turn in range(20):
        make(Store(tmp_path / "one"), ref(address=f"{turn:06x}"), (b"first" * 10000, b"second" * 10000))
    one, two = Store(tmp_path / "one"), Store(tmp_path / "two")
    assert keys(one) == keys(two)
    assert one.index() == two.index()
    for (entry,) in two.index().values():
        a, b = one.manifest(entry.key), two.manifest(entry.key)
        assert (a.parts, a.digest) == (b.parts, b.digest)
        assert two.verify(b, content=True) == []


def test_a_writer_that_dies_while_writing_leaves_nothing_under_a_name(tmp_path):
    process = writer(tmp_path, "dies")
    process.communicate("go\n", timeout=60)
    assert process.returncode == -9
    store, one = Store(tmp_path), ref()
    assert store.names(one.folder) == []
    assert store.index() == {}
    assert make(store, one) is not None


@given(
    st.sampled_from(["pictures", "model", "attack", "scores", "matches", "row"]),
    st.lists(st.text("0123456789abcdef", min_size=1, max_size=64), min_size=4, max_size=4),
)
def test_manifest_names_say_what_they_were_made_of(kind, digests):
    name = Path(manifest_key(kind, *digests)).name
    address, spec, inputs, digest = digests
    entry = Entry.of(name)
    assert (entry.kind, entry.address, entry.spec, entry.inputs) == (kind, address, spec, inputs)
    assert entry.digest == digest[:12]


@given(st.integers(0, 99999), st.integers(1, 99999))
def test_slices_sort_by_number(number, of):
    assert slice_name(number, of) <= slice_name(min(number + 1, 99999), of)


@given(
    st.text(max_size=30), st.integers(1, 9), st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5))
)
def test_orders_travel_as_json(digest, num_slices, spec):
    one = Ref("model", "aa", "full", 1, spec, {"x": InputRef("bb", digest, "m")}, num_slices)
    order = JobOrder("job", STAGES["model"], "tune", TuningPayload((one,), trajectory="run"))
    assert JobOrder.from_json(order.to_json()) == order


def test_no_more_is_read_than_may_be(store):
    store.write("campaigns/empty.json", b"")
    store.write("campaigns/a.json", b"abc")
    assert store.read("campaigns/empty.json", 100) == b""
    assert store.read("campaigns/a.json", 3) == b"abc"
    with pytest.raises(ValueError, match="more than 2"):
        store.read("campaigns/a.json", 2)
    with pytest.raises(Damaged, match=r"campaigns/empty\.json"):
        store.read_json("campaigns/empty.json")
    with pytest.raises(FileNotFoundError):
        store.read("campaigns/none.json", 3)
