"""One set of pictures in a folder, as an audit is given it."""

import numpy as np
import pytest
from PIL import Image

from lmia.data.sources import SOURCES
from lmia.data.sources._index import check_apart, read_index
from lmia.specs import RequestError

KIND = SOURCES.get("imagefolder")


@pytest.fixture(autouse=True)
def every_test_is_a_new_process():
    read_index.cache_clear()


@pytest.fixture(scope="module")
def faces():
    """Twelve people, two photos each: uint8 [12, 2, 64, 64, 3]."""
    population = SOURCES.get("population")
    spec = population.Spec()
    names = population.identities(spec, "wild")[:12]
    return population.pictures(spec, "wild", "x", names, range(2)).images().reshape(12, 2, 64, 64, 3)


def save(path, image, caption=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    if caption:
        path.with_suffix(".txt").write_text(caption)


def spec(root, **more):
    return KIND.Spec(root=str(root), size=64, **more)


def test_flat_pictures_are_people_of_their_own_and_sub_folders_are_people(tmp_path, faces):
    save(tmp_path / "a.png", faces[0, 0], "a man")
    save(tmp_path / "b.png", faces[1, 0])
    for number in (0, 1):
        save(tmp_path / "ann" / f"{number}.png", faces[2, number])
    asked = spec(tmp_path, label="members", caption="a face")
    assert KIND.identities(asked, "members") == ["a.png", "ann", "b.png"]
    everything = KIND.all_of(asked, "members", KIND.identities(asked, "members"))
    assert everything.ids == ["members/a.png/0", "members/ann/0", "members/ann/1", "members/b.png/0"]
    assert everything.captions == ["a man", "a face", "a face", "a face"]
    assert np.array_equal(everything.images()[1:3], faces[2])


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_metadata_names_captions_and_people_if_it_likes(tmp_path, faces, form):
    for n in range(3):
        save(tmp_path / f"{n}.png", faces[n, 0])
    if form == "csv":
        (tmp_path / "metadata.csv").write_text("file_name,text\n0.png,one\n1.png,two\n")
    else:
        (tmp_path / "metadata.jsonl").write_text(
            '{"file_name": "0.png", "text": "one"}\n{"file_name": "1.png", "text": "two"}\n'
        )
    asked = spec(tmp_path)
    assert KIND.identities(asked, "pictures") == ["0.png", "1.png"]
    assert KIND.captions(asked, "pictures") == {"0.png": "one", "1.png": "two"}
    assert "not in the metadata" in KIND.check(asked)[0]


def test_pictures_that_lie_too_deep_are_not_passed_over(tmp_path, faces):
    save(tmp_path / "a.png", faces[0, 0])
    save(tmp_path / "x" / "y" / "z.png", faces[1, 0])
    with pytest.raises(RequestError, match="deeper than DIR/PERSON/PICTURE"):
        KIND.check(spec(tmp_path))


def test_nobody_and_no_picture_is_in_two_folders(tmp_path, faces):
    save(tmp_path / "in" / "ann" / "0.png", faces[0, 0])
    save(tmp_path / "out" / "bob" / "0.png", faces[1, 0])
    folders = {name: spec(tmp_path / name, label=name) for name in ("in", "out")}
    check_apart({name: KIND.index(one) for name, one in folders.items()})
    save(tmp_path / "out" / "ann" / "1.png", faces[0, 1])
    read_index.cache_clear()
    with pytest.raises(RequestError, match="person 'ann' is both in in"):
        check_apart({name: KIND.index(one) for name, one in folders.items()})
    (tmp_path / "out" / "ann" / "1.png").unlink()
    Image.fromarray(faces[0, 0]).save(tmp_path / "out" / "again.jpg", quality=90)
    read_index.cache_clear()
    with pytest.raises(RequestError, match=r"the same in two folders, such as ann/0\.png in in and again\.jpg in out"):
        check_apart({name: KIND.index(one) for name, one in folders.items()})
