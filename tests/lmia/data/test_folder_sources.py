import json
import os

import numpy as np
import pytest
from PIL import Image

from lmia.data.population import PopulationSpec
from lmia.data.sources import SOURCES
from lmia.data.sources._index import FolderSpec, read_index, square
from lmia.specs import RequestError, UnknownName

FOLDER, LFW = SOURCES.get("folder"), SOURCES.get("lfw")


@pytest.fixture(scope="module")
def faces():
    """24 portraits: 8 people with 3 photos each, uint8 [8, 3, 64, 64, 3]."""
    spec, population = PopulationSpec(), SOURCES.get("population")
    names = population.identities(spec, "wild")[:8]
    return population.pictures(spec, "wild", "x", names, range(3)).images().reshape(8, 3, 64, 64, 3)


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


@pytest.fixture
def root(tmp_path, faces):
    for person in range(8):
        for number in range(3):
            where = tmp_path / ("uni" if person < 5 else "club") / f"person{person}" / f"{number}.png"
            save(where, faces[person, number])
    (tmp_path / "uni" / "person1" / "2.txt").write_text("a portrait of somebody\n")
    return tmp_path


@pytest.fixture(autouse=True)
def every_test_is_a_new_process():
    read_index.cache_clear()


def spec(root, **more):
    return FolderSpec(root=str(root), size=64, **more)


def test_folders(root, faces):
    settings = spec(root)
    assert FOLDER.check(settings) == []
    assert FOLDER.sources(settings) == ["club", "uni"]
    assert FOLDER.identities(settings, "uni") == [f"person{i}" for i in range(5)]
    assert FOLDER.photos(settings, "uni", "person1") == 3
    assert FOLDER.parts(settings, "uni") is None
    pictures = FOLDER.pictures(settings, "uni", "A", ["person1", "person0"], [2, 0])
    assert pictures.ids == ["uni/person1/2", "uni/person1/0", "uni/person0/2", "uni/person0/0"]
    assert pictures.captions == ["a portrait of somebody", None, None, None]
    assert np.array_equal(pictures.images(), faces[[1, 1, 0, 0], [2, 0, 2, 0]])


def test_digest_follows_content_and_not_place(root, tmp_path_factory):
    settings = spec(root)
    before = FOLDER.digest(settings, "uni")
    moved = tmp_path_factory.mktemp("other") / "copy"
    os.rename(root, moved)
    assert FOLDER.digest(spec(moved), "uni") == before
    club = FOLDER.digest(spec(moved), "club")
    (moved / "uni" / "person1" / "1.txt").write_text("another caption")
    assert FOLDER.digest(spec(moved), "uni") == before  # one process sees one state
    read_index.cache_clear()
    assert FOLDER.digest(spec(moved), "uni") != before
    assert FOLDER.digest(spec(moved), "club") == club


def test_a_picture_that_changes_underneath_is_noticed(root, faces):
    FOLDER.check(spec(root))
    save(root / "uni" / "person0" / "0.png", 255 - faces[0, 0])
    with pytest.raises(RequestError, match="has changed since"):
        FOLDER.pictures(spec(root), "uni", "A", ["person0"], [0])


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata(tmp_path, faces, kind):
    rows = []
    for person in range(4):
        name = f"images/{person}.png"
        save(tmp_path / name, faces[person, 0])
        rows.append({"file_name": name, "identity": f"p{person}", "caption": f"number {person}, smiling"})
        rows[-1]["part"] = "A" if person < 2 else "B"
    save(tmp_path / "images" / "unlisted.png", faces[5, 0])
    if kind == "csv":
        lines = ["file_name,identity,caption,part,camera"]
        lines += [f'{r["file_name"]},{r["identity"]},"{r["caption"]}",{r["part"]},x' for r in rows]
        (tmp_path / "metadata.csv").write_text("\n".join(lines))
    else:
        (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps({**row, "camera": "x"}) for row in rows))
    source = tmp_path.name
    warnings = FOLDER.check(spec(tmp_path))
    assert len(warnings) == 2 and "camera" in warnings[0] and "unlisted.png" in warnings[1]
    assert FOLDER.sources(spec(tmp_path)) == [source]
    assert FOLDER.parts(spec(tmp_path), source) == {"A": ["p0", "p1"], "B": ["p2", "p3"]}
    pictures = FOLDER.pictures(spec(tmp_path), source, "A", ["p1"], [0])
    assert pictures.captions == ["number 1, smiling"] and np.array_equal(pictures.images()[0], faces[1, 0])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["0.png,a,A", "1.png,a,B"], r"person 'a' .* on two sides of the split: part 'A' \(0.png\) and part 'B'"),
        (["0.png,a,A", "0.png,a,A"], "line 3: file_name = '0.png' is listed twice"),
        (["2.png,a,A"], "line 2: file_name = '2.png': there is no such file"),
        (["../0.png,a,A"], "leads out of the folder"),
        (["0.png,,A"], "line 2: identity = ''"),
        (["0.png,a"], "not as many fields"),
    ],
)
def test_mistakes_in_the_metadata(tmp_path, faces, rows, message):
    for number in range(2):
        save(tmp_path / f"{number}.png", faces[number, 0])
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,identity,part", *rows]))
    with pytest.raises(RequestError, match=message):
        FOLDER.check(spec(tmp_path))


def test_a_missing_column_is_named(tmp_path, faces):
    save(tmp_path / "0.png", faces[0, 0])
    (tmp_path / "metadata.csv").write_text("file_name,identiy\n0.png,a")
    with pytest.raises(UnknownName, match="did you mean 'identiy'"):
        FOLDER.check(spec(tmp_path))


def test_folders_without_pictures(tmp_path, faces):
    with pytest.raises(RequestError, match="there is no such folder"):
        FOLDER.check(spec(tmp_path / "nowhere"))
    (tmp_path / "uni" / "person").mkdir(parents=True)
    (tmp_path / "uni" / "person" / "notes.md").write_text("no picture")
    with pytest.raises(RequestError, match="no pictures in it"):
        FOLDER.check(spec(tmp_path))
    save(tmp_path / "uni" / "stray.png", faces[0, 0])
    with pytest.raises(RequestError, match=r"not in a folder of a person, e.g. 'uni/stray.png'"):
        FOLDER.check(spec(tmp_path))


def test_unreadable_pictures(root):
    whole = (root / "uni" / "person2" / "1.png").read_bytes()
    (root / "uni" / "person2" / "1.png").write_bytes(whole[: len(whole) // 2])
    (root / "club" / "person6" / "0.png").write_bytes(b"")
    with pytest.raises(RequestError, match=r"club/person6/0.png.*1 more; skip_unreadable"):
        FOLDER.check(spec(root))
    warnings = FOLDER.check(spec(root, skip_unreadable=True))
    assert len(warnings) == 1 and warnings[0].startswith("2 of 24 pictures left out, unreadable")
    assert FOLDER.photos(spec(root, skip_unreadable=True), "uni", "person2") == 2


def test_near_duplicates_under_two_names(root, faces):
    Image.fromarray(faces[0, 0]).save(root / "club" / "person7" / "again.jpg", quality=60)
    with pytest.raises(RequestError, match=r"near-duplicates under different persons: club/person7/again.jpg and uni/"):
        FOLDER.check(spec(root))
    left = spec(root, near_duplicates="leave_out")
    assert "1 pictures left out" in FOLDER.check(left)[0]
    assert FOLDER.photos(left, "uni", "person0") == 2 and FOLDER.photos(left, "club", "person7") == 4
    kept = spec(root, near_duplicates="keep")
    assert "kept" in FOLDER.check(kept)[0] and FOLDER.photos(kept, "uni", "person0") == 3


def test_wrong_requests_are_named(root):
    with pytest.raises(UnknownName, match="did you mean 'uni'"):
        FOLDER.identities(spec(root), "uny")
    with pytest.raises(UnknownName, match="did you mean"):
        FOLDER.photos(spec(root), "uni", "person9")
    with pytest.raises(RequestError, match="photo 3 of 'person0'"):
        FOLDER.pictures(spec(root), "uni", "A", ["person0"], [3])


def test_lfw(tmp_path, faces):
    for person, name in enumerate(["Ada_Lovelace", "Alan_Turing"]):
        for number in range(2):
            save(tmp_path / name / f"{name}_{number + 1:04d}.jpg", faces[person, number])
    assert LFW.check(spec(tmp_path)) == []
    assert LFW.identities(spec(tmp_path), "lfw") == ["Ada_Lovelace", "Alan_Turing"]
    pictures = LFW.pictures(spec(tmp_path), "lfw", "wild", ["Alan_Turing"], range(2))
    assert pictures.ids == ["lfw/Alan_Turing/0", "lfw/Alan_Turing/1"]
    save(tmp_path / "Ada_Lovelace" / "holiday.jpg", faces[5, 0])
    read_index.cache_clear()
    with pytest.raises(RequestError, match=r"Ada_Lovelace/holiday.jpg is not named as in LFW"):
        LFW.check(spec(tmp_path))


def test_pictures_are_turned_cut_and_resized(tmp_path):
    image = np.zeros((60, 100, 3), np.uint8)
    image[:, 20:80] = (200, 10, 10)
    assert (square(image, 32) == (200, 10, 10)).all()
    exif = Image.Exif()
    exif[274] = 6  # stored lying on its side
    upright = np.zeros((64, 64, 3), np.uint8)
    upright[:32] = 255
    (tmp_path / "s" / "p").mkdir(parents=True)
    Image.fromarray(np.rot90(upright)).save(tmp_path / "s" / "p" / "0.png", exif=exif)
    assert np.array_equal(FOLDER.pictures(spec(tmp_path), "s", "A", ["p"], [0]).images()[0], upright)


def test_which_photos_come_first_is_drawn_by_the_seed_and_ids_tell_the_file(tmp_path):
    rng = np.random.default_rng(0)
    for who in ("p", "q"):
        (tmp_path / "s" / who).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "s" / who / f"{number}.png")
    plain = FOLDER.pictures(spec(tmp_path), "s", "A", ["p", "q"], [0, 1])
    drawn = [FOLDER.pictures(spec(tmp_path), "s", "A", ["p", "q"], [0, 1], seed=seed) for seed in range(5)]
    assert plain.ids == ["s/p/0", "s/p/1", "s/q/0", "s/q/1"]
    assert len({tuple(each.ids) for each in drawn}) > 1, "the seed decides"
    everything = FOLDER.pictures(spec(tmp_path), "s", "A", ["p", "q"], range(6))
    by_id = dict(zip(everything.ids, everything.images(), strict=True))
    assert all(
        np.array_equal(by_id[i], image) for each in drawn for i, image in zip(each.ids, each.images(), strict=True)
    )
    again = FOLDER.pictures(spec(tmp_path), "s", "A", ["p", "q"], range(6), seed=3)
    assert sorted(again.ids) == sorted(everything.ids), "each photo once"


@pytest.mark.parametrize("name", [".git", ".ipynb_checkpoints", "@eaDir", "__MACOSX", "#recycle"])
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_what_systems_leave_behind_never_counts_however_deep(tmp_path, name, depth):
    (tmp_path / "s" / "p").mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "s" / "p" / "0.png")
    deep = tmp_path.joinpath(*["s", "p", "deeper"][:depth], name, "more")
    deep.mkdir(parents=True)
    Image.fromarray(noise[::-1]).save(deep / "1.png")
    Image.fromarray(noise[::-1]).save(deep.parent / "2.png")
    (deep / "x.xyz").write_text("")
    assert FOLDER.check(spec(tmp_path)) == []
    assert FOLDER.sources(spec(tmp_path)) == ["s"] and FOLDER.photos(spec(tmp_path), "s", "p") == 1
