"""Requests in YAML: what has two meanings, no end or no content is refused, with the file, the line and the key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cells import load
from bench.config import read, yaml_of
from lmia.specs import RequestError


def refused(path, text, overrides=()):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(RequestError) as caught:
        load(str(path), overrides)
    message = str(caught.value)
    assert path.name in message and "\n" not in message
    return message


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("people: {A: 4}\nname: x\npeople: {B: 4}\n", "line 3: the key 'people' stands in line 1 already"),
        ("extends: tiny\ndefault:\n  steps: 2\n  epochs: 3\n  steps: 4\n", "line 5: the key 'steps' stands in line 3"),
        ("extends: tiny\ngrid: [{name: a, name: b}]\n", "line 2: the key 'name' stands in line 2"),
        ("", "nothing is in it"),
        ("# only a remark\n", "nothing is in it"),
        ("{}\n", "nothing is in it"),
        ("---\n...\n", "nothing is in it"),
        ("- a\n", "got a list"),
        ("just words\n", "got a text"),
        ("extends: tiny\ngrid: [{name: a, axes: {query: []}}]\n", "grid.0.axes.query = []"),
        ("extends: tiny\n1: x\n", "line 2: the key 1 (written '1') is no text"),
        ("extends: tiny\non: x\n", "line 2: the key True (written 'on') is no text"),
        ("extends: tiny\n? [a, b]\n: x\n", "line 2"),
        ("extends: tiny\nname:\n\tx: 1\n", "a tab: YAML is indented by spaces"),
        (b"extends: tiny\ntitle: caf\xe9\n", "not UTF-8 (byte 25)"),
        ("extends: tiny\ndescription: " + "[" * 5000, "nested more than"),
        ("extends: tiny\ndescription: " + "[" * 60 + "]" * 60, "nested more than 40 deep"),
        (BOMB, "more than 100,000 values, aliases written out"),
        ("a: &a [*a]\n", "an anchor that holds itself"),
        ("extends: tiny\npictures: " + "1" * 5000 + "\n", "Exceeds the limit"),
        ("extends: tiny\ntitle: 2026-13-45\n", "month"),
        ("extends: tiny\n--- \nname: two\n", "line 2"),
        ("extends: [tiny]\n", "extends = ['tiny']: expected a preset's name"),
        ("extends: tiny\npictures: many\n", "pictures = 'many'"),
        ("extends: tiny\npeople: 5\n", "people = 5"),
        ("extends: tiny\ngrid: {name: a}\n", "grid"),
        ("extends: tiny\ngrid: [{axes: {query: wild}}]\n", "grid.0.name is missing"),
        ("extends: tiny\ngrid: [{name: a, axs: {}}]\n", "unknown key at grid.0.axs 'axs'; did you mean 'axes'?"),
        ("extends: tiny\ngrid: [{name: a, role: plantd}]\n", "did you mean 'planted'?"),
        ("extends: tiny\ndefault: {stps: 2}\n", "did you mean 'steps'?"),
        ("extends: tiny\nsources: {institution: [north, south]}\n", "did you mean 'institutions'?"),
        ("extends: tiny\npicture: 3\n", "did you mean 'pictures'?"),
        ("extends: tiny\ndtype: float23\n", "did you mean 'float32'?"),
        ("extends: tiny\nname: ..\n", "name = '..'"),
        ("extends: tinny\n", "did you mean 'tiny'?"),
        ("extends: tiny\ndata: {kind: poplation}\n", "did you mean 'population'?"),
        ("extends: tiny\ndefault: {attack: los}\n", "did you mean 'loss'?"),
    ],
    ids=range(37),
)
def test_a_file_that_cannot_be_meant_is_refused_by_file_line_and_key(text, message, tmp_path):
    path = tmp_path / "mine.yaml"
    assert message in refused(path, text)


def test_a_circle_of_files_is_seen_through_other_paths_and_links(tmp_path):
    (tmp_path / "a.yaml").write_text("extends: sub/../b.yaml\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.yaml").write_text("extends: link.yaml\n")
    (tmp_path / "link.yaml").symlink_to(tmp_path / "a.yaml")
    with pytest.raises(RequestError, match="extends itself"):
        read(str(tmp_path / "a.yaml"))


def test_a_benchmark_s_own_name_is_its_file_s_and_no_preset_s(tmp_path):
    (tmp_path / "my own.yaml").write_text("extends: tiny\npictures: 4\n")
    mine = load(str(tmp_path / "my own.yaml"))
    assert (mine.name, mine.title, mine.description, mine.pictures) == ("my-own", "", "", 4)
    (tmp_path / "further.yaml").write_text("extends: my own.yaml\nname: far\ntitle: Mine\n")
    assert load(str(tmp_path / "further.yaml")).title == "Mine"


def test_aliases_and_merge_keys_work_and_an_override_changes_one_of_them(tmp_path):
    text = "extends: tiny\nx: &x {lr: 1.0e-3}\nfinetune: {<<: *x, rank: 2}\n"
    assert yaml_of(text, "mine")["finetune"] == {"lr": 1e-3, "rank": 2}
    (tmp_path / "mine.yaml").write_text("extends: tiny\nattacks: {loss: &x {noises: 1}, calibrated: {}, pia: {}}\n")
    shared = tmp_path / "shared.yaml"
    shared.write_text("extends: tiny\npeople: &n {A: 4, B: 4}\ngrid: [{name: a, settings: {people: *n}}]\n")
    found = load(str(shared), ["people.aux=6"])
    assert found.people["aux"] == 6 and found.grid[0].settings["people"] == {"A": 4, "B": 4}


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=5),
        lambda s: st.lists(s) | st.dictionaries(st.text(max_size=5), s),
        max_leaves=20,
    )
)
def test_what_yaml_writes_is_read_as_it_was(value):
    import yaml

    assert yaml_of(yaml.safe_dump(value), "x") == value


@given(st.text(max_size=80) | st.text(alphabet="[]{}:,-&*!?|>'\"%@`# \n\tab1~<", max_size=60))
def test_any_text_is_read_or_refused(text):
    try:
        yaml_of(text, "mine")
    except RequestError as error:
        assert str(error).startswith("mine: ")
