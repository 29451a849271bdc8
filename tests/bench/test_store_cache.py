"""The cache: private, verified on use, and clean after a kill."""

import os
from pathlib import Path

import pytest

from bench.store import Cache, InfrastructureError, Ref, Store


@pytest.fixture
def artifact(tmp_path):
    store = Store(tmp_path / "store")
    one = Ref("model", "c0ffee", "base", 1, {}, {})
    store.put_slice(one, 0, {"unet/weights.bin": bytes(range(250)) * 100, "unet/config.json": b"{}"})
    return store, store.commit(one)


@pytest.mark.parametrize("damage", ["bit", "gone", "more", "link"])
def test_what_was_damaged_is_fetched_again(artifact, tmp_path, damage):
    cache = Cache(tmp_path / "cache")
    file = cache.fetch(*artifact) / "unet" / "weights.bin"
    good = file.read_bytes()
    if damage == "bit":
        file.write_bytes(bytes([good[0] ^ 1]) + good[1:])
    elif damage == "more":
        (file.parent / "other.safetensors").write_bytes(b"x")
    else:
        file.unlink()
        if damage == "link":
            (tmp_path / "elsewhere").write_bytes(good)
            file.symlink_to(tmp_path / "elsewhere")
    place = Cache(tmp_path / "cache").fetch(*artifact)
    assert {p.name for p in place.rglob("*") if p.is_file()} == {"weights.bin", "config.json"}
    assert file.read_bytes() == good and not file.is_symlink()
    assert [p.name for p in cache.folder.iterdir()] == [place.name]


def test_a_file_is_read_once_per_process(artifact, tmp_path, monkeypatch):
    cache = Cache(tmp_path / "cache")
    cache.fetch(*artifact)
    read = []
    monkeypatch.setattr(Path, "open", lambda self, *_: read.append(self))
    cache.fetch(*artifact)
    assert read == []


def test_a_folder_that_is_not_ones_own_is_refused(artifact, tmp_path, monkeypatch):
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(InfrastructureError, match=r"open is open to other users \(mode 0755\): chmod 700"):
        Cache(tmp_path / "open").fetch(*artifact)
    (tmp_path / "mine").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    with pytest.raises(InfrastructureError, match="is no folder"):
        Cache(tmp_path / "link").fetch(*artifact)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(InfrastructureError, match=r"belongs to user .* LMIA_CACHE"):
        Cache(tmp_path / "mine").fetch(*artifact)
    assert list((tmp_path / "mine").iterdir()) == []
