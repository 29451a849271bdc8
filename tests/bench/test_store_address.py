"""Where a store may lie, and what a wrong address is told."""

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from bench.cli import main
from bench.store import Ref, Store, address
from lmia.specs import RequestError


@pytest.mark.parametrize(
    ("given_", "hint"),
    [
        ("s3:/bucket/x", "did you mean s3://bucket/x?"),
        ("S3://bucket", "did you mean s3://bucket?"),
        ("s3:///bucket", "did you mean s3://bucket?"),
        ("s4://bucket", "did you mean s3://bucket?"),
        ("gss://bucket", "did you mean gs://bucket?"),
        ("http://host/x", "a store is a folder, s3://BUCKET/PATH"),
        ("foo://x", "a store is a folder"),
        ("s3://", "names no bucket"),
        ("s3://bucket/x::file:///y", "chained"),
    ],
)
def test_a_wrong_scheme_is_a_mistake_with_the_nearest_right_form(given_, hint, capsys):
    assert main(["leaderboard", "tiny", "--store", given_]) == 2
    said = capsys.readouterr().err
    assert hint in said and "store" in said and len(said.strip().splitlines()) == 1


@pytest.mark.parametrize(("scheme", "extra"), [("gs", r"lmia\[gs\]"), ("az", r"lmia\[az\]")])
def test_a_missing_extra_is_named(scheme, extra, monkeypatch):
    monkeypatch.setattr(address.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=extra):
        Store(f"{scheme}://bucket/x")


@pytest.mark.parametrize("scheme", ["gs", "az", "abfs"])
def test_other_object_stores_by_their_scheme(scheme, monkeypatch):
    fake = type("Fake", (MemoryFileSystem,), {"protocol": scheme, "store": {}, "pseudo_dirs": [""]})
    monkeypatch.setitem(fsspec.registry._registry if hasattr(fsspec.registry, "_registry") else {}, scheme, fake)
    monkeypatch.setattr(address, "_open", lambda name: fake(skip_instance_cache=True))
    monkeypatch.setattr(address, "_opened", {})
    monkeypatch.setattr(fake, "_strip_protocol", classmethod(lambda cls, path: "/" + path.split("://")[-1].strip("/")))
    store, ref = Store(f"{scheme}://bucket/x"), Ref("model", "c0ffee", "base", 1, {}, {})
    store.put_slice(ref, 0, {"w.bin": b"weights"})
    manifest = store.commit(ref)
    assert store.part(store.manifest(manifest.key), "w.bin") == b"weights"
    assert not store.local


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=20))
def test_a_local_path_may_have_any_characters(tmp_path_factory, name):
    if name in (".", "..") or len(name.encode()) > 200:
        return
    folder = tmp_path_factory.mktemp("odd") / name
    store = Store(folder)
    store.write_json("campaigns/a.json", {"x": 1})
    assert (folder / "campaigns" / "a.json").is_file()
    assert (store.names("campaigns"), store.under("campaigns")) == (["a.json"], ["campaigns/a.json"])
    assert store.exists("campaigns/a.json") and store.size("campaigns/a.json")
    store.remove("campaigns/a.json")
    assert not store.exists("campaigns/a.json")


@pytest.mark.parametrize("name", ["a%20b", "a?b#c", "a b", "ä::b", "[x]*", "~", "x:y"])
def test_odd_folders(tmp_path, name):
    store = Store(tmp_path / name)
    store.write("a/b", b"x")
    assert (tmp_path / name / "a" / "b").read_bytes() == b"x"
    assert store.names("a") == ["b"]
