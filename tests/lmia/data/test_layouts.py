"""Folders as people have them: read rightly, said, or refused by name."""

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image

from lmia.data.sources import SOURCES
from lmia.data.sources._index import check_apart, read_index
from lmia.specs import RequestError

KIND = SOURCES.get("imagefolder")


@pytest.fixture(autouse=True)
def fresh():
    read_index.cache_clear()
    yield
    read_index.cache_clear()


def put(path, seed=0, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    Image.fromarray(blocks).save(path, **more)
    return path


def spec(root, **more):
    return KIND.Spec(root=str(root), size=32, label="members", **more)


def everything(root, **more):
    one = spec(root, **more)
    return KIND.all_of(one, "members", KIND.identities(one, "members")), KIND.check(one)


def test_every_second_picture_in_another_format_is_used(tmp_path):
    for n in range(8):
        put(tmp_path / f"{n}.{('png', 'avif', 'gif', 'jfif')[n % 4]}", n, **({"format": "JPEG"} if n % 4 == 3 else {}))
    pictures, warnings = everything(tmp_path)
    assert len(pictures) == 8 and warnings == []


def test_files_that_are_no_pictures_are_counted_and_said(tmp_path):
    for n in range(4):
        put(tmp_path / f"{n}.png", n)
    (tmp_path / "film.mp4").write_bytes(b"x")
    (tmp_path / "0.txt").write_text("a face")
    pictures, warnings = everything(tmp_path)
    assert len(pictures) == 4
    assert warnings == ["1 files are not read as pictures: .mp4 (1)"]


def test_a_folder_that_is_mostly_something_else_is_refused(tmp_path):
    put(tmp_path / "0.png")
    (tmp_path / "1.jxl").write_bytes(b"x")
    with pytest.raises(RequestError, match=r"1 files are not read as pictures: .jxl \(1\), and only 1 are; convert"):
        everything(tmp_path)


def test_pictures_of_the_same_name_in_two_folders_are_different_people(tmp_path):
    put(tmp_path / "m" / "0000.png", 1)
    put(tmp_path / "n" / "0000.png", 2)
    indexes = {side: KIND.index(KIND.Spec(root=str(tmp_path / side), size=32, label=side)) for side in "mn"}
    check_apart(indexes)
    who = {}
    for side in "mn":
        one = KIND.Spec(root=str(tmp_path / side), size=32, label=side)
        who[side] = KIND.all_of(one, side, KIND.identities(one, side))
    assert who["m"].identities != who["n"].identities


@pytest.mark.parametrize("split", ["train", "Val", "test"])
def test_a_split_is_no_person(tmp_path, split):
    for n in range(3):
        put(tmp_path / split / f"{n}.png", n)
        put(tmp_path / split / "anna" / f"{n}.png", 10 + n)
    pictures, warnings = everything(tmp_path)
    assert len(set(pictures.identities)) == 4
    assert warnings == [f"{split}/ is taken for a split, not for a person"]


def test_metadata_of_a_split_is_read(tmp_path):
    rows = [{"file_name": f"{n}.png", "text": f"a man {n}", "identity": f"p{n}"} for n in range(3)]
    for n in range(3):
        put(tmp_path / "train" / f"{n}.png", n)
    (tmp_path / "train" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pictures, _ = everything(tmp_path)
    assert sorted(pictures.captions) == ["a man 0", "a man 1", "a man 2"]
    assert sorted(pictures.identities) == ["p0", "p1", "p2"]


def test_an_empty_metadata_file_is_a_mistake(tmp_path):
    put(tmp_path / "0.png")
    (tmp_path / "metadata.jsonl").write_text("")
    with pytest.raises(RequestError, match="lists no picture"):
        everything(tmp_path)


def test_kohya_folders_name_and_caption_their_person(tmp_path):
    put(tmp_path / "10_ohwx woman" / "0.png", 0)
    put(tmp_path / "10_ohwx woman" / "1.png", 1)
    (tmp_path / "10_ohwx woman" / "1.caption").write_text("ohwx woman smiling\n")
    pictures, warnings = everything(tmp_path)
    assert set(pictures.identities) == {"ohwx woman"}
    assert pictures.captions == ["ohwx woman", "ohwx woman smiling"]
    assert "repeats" in warnings[0]


def test_two_captions_of_one_picture_that_differ_are_refused(tmp_path):
    put(tmp_path / "0.png")
    (tmp_path / "0.txt").write_text("a man")
    (tmp_path / "0.caption").write_text("a woman")
    with pytest.raises(RequestError, match=r"0.png: its .txt and its .caption say different things"):
        everything(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_captions_with_and_without_a_byte_order_mark(tmp_path, encoding):
    put(tmp_path / "0.png")
    (tmp_path / "0.txt").write_bytes("a fiancée".encode(encoding))
    assert everything(tmp_path)[0].captions == ["a fiancée"]


@pytest.mark.parametrize("name", ["0.txt", "metadata.csv", "metadata.jsonl"])
def test_another_encoding_is_refused_with_the_files_name(tmp_path, name):
    put(tmp_path / "0.png")
    (tmp_path / name).write_bytes("file_name,text\n0.png,fianc\xe9e".encode("latin-1"))
    with pytest.raises(RequestError, match=f"{name}: not UTF-8"):
        everything(tmp_path)


@pytest.mark.parametrize("value", [["a man", "he"], 3, {"a": 1}, True])
def test_captions_that_are_no_text_are_refused_with_their_row(tmp_path, value):
    put(tmp_path / "0.png")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "text": value}))
    with pytest.raises(RequestError, match=r"metadata.jsonl line 1: text = .*expected one text"):
        everything(tmp_path)


@pytest.mark.parametrize("value", [None, float("nan"), ""])
def test_nothing_is_no_caption(tmp_path, value):
    put(tmp_path / "0.png")
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "0.png", "text": value}))
    assert everything(tmp_path)[0].captions == [None]


@pytest.mark.parametrize("other", [unicodedata.normalize("NFD", "Zoë"), "ZOË", "Zoë "])
def test_one_person_under_two_spellings_is_noticed_across_folders(tmp_path, other):
    put(tmp_path / "m" / unicodedata.normalize("NFC", "Zoë") / "0.png", 1)
    put(tmp_path / "n" / other / "0.png", 2)
    indexes = {side: KIND.index(KIND.Spec(root=str(tmp_path / side), size=32, label=side)) for side in "mn"}
    with pytest.raises(RequestError, match="is both in m"):
        check_apart(indexes)


def test_one_person_under_two_spellings_in_one_folder_is_refused(tmp_path):
    put(tmp_path / "Anna_Berg" / "0.png", 1)
    put(tmp_path / "anna berg" / "0.png", 2)
    with pytest.raises(RequestError, match="one person under two spellings"):
        everything(tmp_path)


def test_copies_within_a_person_are_left_out_and_said(tmp_path):
    put(tmp_path / "anna" / "0.png", 1)
    put(tmp_path / "anna" / "1.bmp", 1)
    put(tmp_path / "anna" / "2.png", 2)
    pictures, warnings = everything(tmp_path)
    assert len(pictures) == 2
    assert warnings == ["1 pictures left out, the same person's same picture again: anna/1.bmp is anna/0.png"]
    assert len(everything(tmp_path, near_duplicates="keep")[0]) == 3


def test_hidden_folders_count_at_no_depth(tmp_path):
    put(tmp_path / "anna" / "0.png", 1)
    put(tmp_path / ".cache" / "a" / "b" / "0.png", 2)
    put(tmp_path / "anna" / ".thumbs" / "0.png", 3)
    assert len(everything(tmp_path)[0]) == 1
