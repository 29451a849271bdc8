"""A store that somebody else wrote: nothing outside of its root and of the cache is read, written or deleted."""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import attempts
from bench.cli import main
from bench.record import CampaignRecord
from bench.store import Cache, Damaged, InfrastructureError, InputRef, Ref, Store, digest_of
from bench.store import files as store_files
from bench.store.records import SHORT, seal
from bench.workbench import Runtime, Workbench
from lmia.specs import RequestError

SECRET = b"a secret that the store's author wants to see\n"
opened: list[str] = []
watching: list[bool] = []


def _watch(event, arguments):
    if watching and event in ("open", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "shutil.rmtree"):
        opened.extend(os.path.realpath(a) for a in arguments[:2] if isinstance(a, str))


sys.addaudithook(_watch)


class Sandbox:
    """A store and a cache beside files that are none of theirs."""

    def __init__(self, root: Path):
        self.root, self.outside = root, root / "outside"
        (self.outside / "deep").mkdir(parents=True)
        for name in ("canary", "deep/canary", "canary.json"):
            (self.outside / name).write_bytes(SECRET)
        self.store = Store(root / "store")
        self.cache = Cache(root / "cache")
        self.ref = Ref("model", "ab12", "base", 1, {"seed": 0}, {"base": InputRef("cd34", "e" * 12, "")})
        self.store.put_slice(self.ref, 0, {"unet/w.bin": b"weights"}, facts={"trained_on": None})
        manifest = self.store.commit(self.ref)
        assert manifest is not None
        self.manifest = manifest
        self.before = self.state()

    def state(self):
        return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in self.outside.rglob("*") if p.is_file()}

    @contextlib.contextmanager
    def guarded(self):
        opened.clear()
        watching.append(True)
        try:
            with contextlib.suppress(InfrastructureError, FileNotFoundError, RequestError, KeyError):
                yield
        finally:
            watching.clear()
        # A look at a folder to walk it is no reading; a file that is opened is.
        assert not [path for path in opened if path.startswith(f"{self.outside}/")]
        assert self.state() == self.before
        assert {p.name for p in self.root.iterdir()} <= {"store", "cache", "outside"}


@contextlib.contextmanager
def sandbox():
    with tempfile.TemporaryDirectory() as folder:
        yield Sandbox(Path(os.path.realpath(folder)))


def use(box, key):
    """Whatever is done with an artifact."""
    store = box.store
    for step in (
        lambda: Cache(box.root / "cache").fetch(store, store.manifest(key)),
        lambda: [store.part_bytes(store.manifest(key), part) for part in store.manifest(key).parts],
        lambda: store.verify(store.manifest(key), content=True),
        lambda: store.discard(store.manifest(key), list(store.manifest(key).parts)),
        lambda: store.discard_damaged(key),
    ):
        with box.guarded():
            step()


LEADING_OUT = [
    "../outside/canary",
    "../../../outside/canary",
    "../../outside/canary",
    "/etc/hostname",
    "a/../../../outside/canary",
    "..",
    ".",
    "",
]
LEADING_OUT += ["parts/model-ab12/../../../outside/canary", "./x", "a//b", "a\\..\\b", "a\0b", "x" * 300, "a\nb"]
names = (
    st.sampled_from(LEADING_OUT) | st.text(max_size=12).map(lambda text: f"../outside/{text}") | st.text(max_size=20)
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_hostile_manifest_reaches_nothing(data):
    """Its name, checksum and digests all fit: the author had the code too."""
    with sandbox() as box:
        value = json.loads(box.store.read(box.manifest.key))
        value.pop("check")
        part = value["parts"][0]
        field = data.draw(st.sampled_from(["name", "key", "both", "sha256", "size", "kind", "address", "any"]))
        if field in ("name", "both"):
            part["name"] = data.draw(names)
        if field in ("key", "both"):
            part["key"] = data.draw(names)
            part |= {"sha256": hashlib.sha256(SECRET).hexdigest(), "size": len(SECRET)}
        if field in ("sha256", "size"):
            part[field] = data.draw(junk)
        if field in ("kind", "address"):
            value[field] = data.draw(names)
        if field == "any":
            value[data.draw(st.sampled_from(sorted(value)))] = data.draw(junk)
        name = box.manifest.key
        with contextlib.suppress(TypeError, KeyError, AttributeError):
            value["digest"] = digest_of([[p["name"], p["sha256"]] for p in value["parts"]])
            name = name.rsplit(".", 2)[0] + f".{value['digest'][:SHORT]}.json"
        box.store.write(name, json.dumps(seal(value)).encode())
        use(box, name)


@settings(max_examples=40, deadline=None)
@given(names, names)
def test_a_hostile_receipt_reaches_nothing(name, key):
    with sandbox() as box:
        box.store.remove(box.manifest.key)
        (receipt,) = (n for n in box.store.names(box.ref.folder) if n.endswith("receipt.json"))
        value = box.store.read_json(f"{box.ref.folder}/{receipt}")
        value["parts"][0] |= {"name": name, "key": key, "sha256": hashlib.sha256(SECRET).hexdigest()}
        box.store.write_json(f"{box.ref.folder}/{receipt}", value)
        with box.guarded():
            assert box.store.commit(box.ref, content=True) is None
        assert box.store.slices_done(box.ref) == set()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["campaigns/x.json", "attempts/job/1.json"]), junk | names, st.booleans())
def test_hostile_campaigns_and_attempts_end_in_a_line(key, value, sealed):
    with sandbox() as box:
        fields = value if isinstance(value, dict) else {"name": value, "job": value, "cells": value}
        box.store.write(key, json.dumps(seal(fields) if sealed else value).encode(errors="replace"))
        with box.guarded():
            with pytest.raises(Damaged, match=r"campaigns/x\.json") if "campaign" in key else contextlib.nullcontext():
                CampaignRecord.read("x", box.store)
            assert attempts.failures(box.store, "job") == []
        with box.guarded():
            status = ["leaderboard", "x"] if "campaign" in key else ["status"]
            assert main([*status, "--store", str(box.root / "store")]) == (3 if "campaign" in key else 0)


@given(st.sampled_from(LEADING_OUT[:9]))
def test_no_key_leads_out(key):
    with sandbox() as box:
        for call in (box.store.read, box.store.remove, box.store.size, box.store.exists, box.store.names):
            with box.guarded():
                assert not call(key)
        with box.guarded():
            box.store.write(key, b"x")


@pytest.mark.parametrize("what", ["manifests", "parts", "parts/model-ab12", "attempts", "campaigns", "partial"])
def test_a_symbolic_link_leads_nowhere(what):
    with sandbox() as box:
        place = box.root / "store" / what
        shutil.rmtree(place, ignore_errors=True)
        place.symlink_to(box.outside / "deep")
        use(box, box.manifest.key)
        for act in (
            lambda: box.store.put_slice(box.ref, 0, {"unet/w.bin": b"others"}),
            lambda: box.store.commit(box.ref),
            lambda: box.store.write_json(f"{what}/x.json", {}),
            lambda: box.store.remove(f"{what}/canary"),
            lambda: box.store.read(f"{what}/canary"),
            lambda: attempts.begin(box.store, "job", "title", "run"),
            lambda: Workbench(box.store, Runtime(cache=str(box.root / "cache"))).partial("deep").__enter__(),
        ):
            with box.guarded():
                act()


def test_what_is_no_file_or_too_large_is_not_read(monkeypatch):
    with sandbox() as box:
        os.mkfifo(box.root / "store" / "manifests" / "pipe.json")
        with pytest.raises(InfrastructureError, match="no regular file"):
            box.store.read_json("manifests/pipe.json")
        monkeypatch.setattr(store_files, "MAX_JSON_BYTES", 100)
        with pytest.raises(Damaged, match="more than 100"):
            box.store.manifest(box.manifest.key)


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "null", '"x"', "[" * 100_000, '{"parts": NaN}', "\xff"])
def test_a_damaged_manifest_is_named_and_can_be_discarded(text):
    with sandbox() as box:
        whole = box.store.read(box.manifest.key)
        box.store.write(box.manifest.key, text.encode("latin-1"))
        with pytest.raises(Damaged, match=box.manifest.key.split("/")[1]):
            box.store.manifest(box.manifest.key)
        box.store.discard_damaged(box.manifest.key)
        assert box.store.index() == {}
        box.store.commit(box.ref)
        assert box.store.read(box.manifest.key) == whole


@pytest.mark.parametrize("name", ["../../../outside/new.bin", "/outside/new.bin"])
def test_a_name_in_an_artifact_does_not_leave_the_cache(name):
    with sandbox() as box:
        name = f"{box.root}{name}" if name.startswith("/") else name
        value = box.store.read_json(box.manifest.key)
        value["parts"][0]["name"] = name
        value["digest"] = digest_of([[name, value["parts"][0]["sha256"]]])
        key = box.manifest.key.rsplit(".", 2)[0] + f".{value['digest'][:SHORT]}.json"
        box.store.write_json(key, value)
        with pytest.raises(Damaged, match="no plain relative name"):
            box.store.manifest(key)
        use(box, key)
        assert not (box.outside / "new.bin").exists()
