"""`lmia audit` as a person uses it: a leak, a confounded comparison, an adapter, pictures alone, and mistakes."""

import hashlib
import json
import shutil
from pathlib import Path

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.audit.file import as_yaml, read
from bench.audit.plan import plan
from bench.audit.record import schema
from bench.audit.request import Audit
from bench.cli import main
from lmia.data.sources._index import read_index
from lmia.specs import RequestError
from tests.bench.audit_world import small_world, write_people

QUICK = ["--set", "drawn=16", "--set", "sampling={steps: 2, sampler: ddim}", "--set", "epochs=2"]
QUICK += ["--set", "finetune={lr: 1.0e-3, batch_size: 8, warmup_steps: 0}"]
QUICK += ["--set", "settings.generated_set_classifier={size: 32, epochs: 1}"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return small_world(tmp_path_factory.mktemp("world"))


def audit(world, out, *more, model="model", nonmembers="nonmembers"):
    arguments = ["audit", "--members", str(world / "members"), "--nonmembers", str(world / nonmembers)]
    arguments += ["--base", str(world / "base"), *(["--model", str(world / model)] if model else [])]
    arguments += ["--store", str(world / "store"), "--out", str(out), *QUICK, *more]
    assert main(arguments) == 0
    return json.loads((out / "metrics.json").read_text())


@pytest.mark.ray
@pytest.mark.e2e
def test_a_model_that_has_memorised_its_pictures(world, ray_cluster, tmp_path, capsys):
    attacks = ["--attacks", "loss,calibrated,clid,generated_set_nearest", "--shadow", str(world / "shadow")]
    found = audit(world, tmp_path / "out", *attacks)
    by_name = {attack["attack"]: attack for attack in found["attacks"]}
    assert by_name["loss"]["auc"]["value"] > 0.8 and by_name["loss"]["base_auc"]["value"] < 0.6
    assert found["verdict"] == "leak" and found["attacks"][0]["found"]
    assert by_name["calibrated"]["base_auc"] is None and "subtracts" in by_name["calibrated"]["reason"]["base_auc"]
    assert by_name["loss"]["tpr_at_fpr"] == {"0.01": None} and "at least 100" in by_name["loss"]["reason"]["tpr"]
    assert found["num_members"] == found["num_nonmembers"] == 32 and found["num_identities"] == 32
    said = capsys.readouterr()
    assert "Verdict: leak" in said.out and "jobs done" in said.err

    table = pq.read_table(tmp_path / "out" / "scores.parquet")
    assert table.num_rows == 4 * 64 and set(table["attack"].to_pylist()) == set(by_name)
    assert main(["evaluate", str(tmp_path / "out" / "scores.parquet"), "--by", "attack", "--format", "json"]) == 0
    for group in json.loads(capsys.readouterr().out)["groups"]:
        assert group["auc"] == pytest.approx(by_name[group["group"]["attack"]]["auc"]["value"])

    page = (tmp_path / "out" / "report.html").read_text()
    for words in ("There is evidence that this set was used", "does not show", "Is it only", "SHA-256"):
        assert words in page
    assert "http" not in page.replace("http-equiv", "") and "<script" not in page

    again = audit(world, tmp_path / "again", *attacks)
    assert "0 jobs done" in capsys.readouterr().err
    for one in (found, again):
        del one["provenance"], one["scores_sha256"]
    assert again == found
    jsonschema.validate(json.loads((tmp_path / "out" / "metrics.json").read_text()), json.loads(schema()))
    assert (tmp_path / "out" / "report.pdf").read_bytes().startswith(b"%PDF")
    check_and_tamper(tmp_path / "out", capsys)
    replaced = tmp_path / "elsewhere"
    shutil.copytree(world / "members", replaced)
    first, second = sorted(replaced.rglob("*.png"))[:2]
    first.write_bytes(second.read_bytes())
    assert main(["audit", "--check", str(tmp_path / "out"), "--members", str(replaced)]) == 1
    assert f"{first.relative_to(replaced).as_posix()} is another" in capsys.readouterr().out
    assert main(["audit", "--check", str(tmp_path / "out"), "--model", str(world / "base")]) == 1
    assert "differs: model" in capsys.readouterr().out
    assert main(["audit", "--check", str(tmp_path / "out"), "--members", str(tmp_path / "nowhere")]) == 0
    assert "cannot be checked: members" in capsys.readouterr().out


def check_and_tamper(out, capsys):
    """As it was written all agrees; one number changed anywhere, even with its digest, does not."""
    assert main(["audit", "--check", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) > 15 and all(line.startswith("agrees") for line in said)
    for name, old, new in (
        ("metrics.json", b'"num_members": 32', b'"num_members": 33'),
        ("report.html", b"32 pictures of 16 people", b"34 pictures of 16 people"),
    ):
        file, sums = out / name, out / "SHA256SUMS"
        data, listed = file.read_bytes(), sums.read_text()
        assert old in data
        file.write_bytes(data.replace(old, new))
        assert main(["audit", "--check", str(out)]) == 1
        assert f"differs: {name}" in capsys.readouterr().out
        sums.write_text(listed.replace(hashlib.sha256(data).hexdigest(), hashlib.sha256(file.read_bytes()).hexdigest()))
        assert main(["audit", "--check", str(out)]) == 1
        assert "differs" in capsys.readouterr().out
        file.write_bytes(data)
        sums.write_text(listed)
    file = out / "scores.parquet"
    data = file.read_bytes()
    table = pq.read_table(file).to_pydict()
    table["score"][0] += 100.0
    pq.write_table(pa.table(table), file)
    assert main(["audit", "--check", str(out)]) == 1
    assert "by the scores" in capsys.readouterr().out
    file.write_bytes(data)


def test_the_schema_of_the_numbers_is_current():
    path = Path(__file__).parents[2] / "docs" / "audit.schema.json"
    assert path.read_text() == schema(), "remade by: python -m bench.audit.record > docs/audit.schema.json"


def test_an_audit_from_a_file(world, tmp_path, monkeypatch, capsys):
    (world / "audit.yaml").write_text("members: members\nnonmembers: nonmembers\nmodel: model\nbase: tiny\n")
    monkeypatch.chdir(tmp_path)
    found = Audit(**read(world / "audit.yaml"))
    assert found.members == str(world / "members") and found.model == str(world / "model") and found.base == "tiny"
    (tmp_path / "audit.yaml").write_text(as_yaml(found, tmp_path))
    assert Audit(**read(tmp_path / "audit.yaml")) == found, "the file that a report has asks the same again"
    (world / "odd.yaml").write_text("membrs: members\n")
    (world / "twice.yaml").write_text("members: members\nmembers: other\n")
    for arguments, said in (
        (["--file", str(world / "odd.yaml")], "did you mean 'members'"),
        (["--file", str(world / "twice.yaml")], "stands in line 1 already"),
        (["--file", str(world / "none.yaml")], "no such file"),
        (["--file", str(world / "audit.yaml"), "--attacks", "los"], "did you mean 'loss'"),
        (["--check", str(tmp_path)], "no metrics.json there"),
        ([], "--members is missing"),
    ):
        assert main(["audit", *arguments]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.e2e
def test_people_of_another_source_make_it_undetermined(world, ray_cluster, tmp_path, capsys):
    found = audit(world, tmp_path, "--attacks", "loss", nonmembers="other")
    assert found["verdict"] == "undetermined" and found["blind"]["captions"]["ci"][0] > 0.5, "they name the source"
    assert found["attacks"][0]["set_p_value"] is None and not found["attacks"][0]["found"]
    assert "split one pool at random" in found["remedies"][0]
    page = (tmp_path / "report.html").read_text()
    assert "Nothing can be said" in page and "These numbers are not evidence" in page and "<img" not in page
    assert "Verdict: undetermined" in capsys.readouterr().out


@pytest.mark.ray
@pytest.mark.e2e
def test_an_adapter_and_a_base_that_is_the_model(world, ray_cluster, tmp_path):
    scores = {}
    for model, verdict in (("lora", "no leak found"), ("base", "undetermined")):
        found = audit(world, tmp_path / model, "--attacks", "loss", model=model)
        assert found["verdict"] == verdict and found["mde"] > 0
        scores[model] = pq.read_table(tmp_path / model / "scores.parquet").to_pydict()
    assert "the base model is no control" in found["reasons"][0] and "--base" in found["remedies"][0]
    assert scores["base"]["score"] == scores["base"]["base_score"] == scores["lora"]["base_score"]
    assert scores["lora"]["score"] != scores["base"]["score"], "the adapter was laid over the base"


@pytest.mark.ray
@pytest.mark.e2e
def test_pictures_of_a_model_that_one_cannot_hold(world, ray_cluster, tmp_path, capsys):
    drawn = tmp_path / "drawn"
    shutil.copytree(world / "shadow", drawn)
    found = audit(world, tmp_path / "out", "--generated", str(drawn), model=None)
    assert {a["attack"] for a in found["attacks"]} == {
        "generated_set_classifier", "generated_set_mean", "generated_set_nearest",
    }  # fmt: skip
    assert "only pictures that it generated were given" in found["left_out"]["loss"]
    assert "left out: loss" in capsys.readouterr().err
    assert found["attacks"][0]["auc"] is not None


def request(world, **more):
    given = {"model": world / "model", "members": world / "members", "nonmembers": world / "nonmembers", **more}
    return Audit(**{name: str(value) if name != "attacks" else value for name, value in given.items()})


def test_what_is_left_out_depends_on_what_is_given(world):
    read_index.cache_clear()
    with_all = plan(request(world, base=world / "base", shadow=world / "shadow"))
    assert with_all.left_out == {} and with_all.size == 32
    bare = plan(request(world))
    assert {"calibrated", "combined", "clid", "generated_set_classifier"} <= set(bare.left_out)
    assert {line.attack for line in bare.lines} >= {"loss", "secmi", "pia", "reconstruction", "rediffuse"}
    assert all(not line.base for line in bare.lines), "no base model, no base control"
    assert set(with_all.blind) == {"pictures", "captions"}


def test_pictures_without_captions(world, tmp_path):
    read_index.cache_clear()
    bare = tmp_path / "bare"
    shutil.copytree(world / "members", bare, ignore=shutil.ignore_patterns("*.txt"))
    planned = plan(request(world, members=bare))
    assert "--caption" in planned.left_out["reconstruction"] and "loss" not in planned.left_out
    read_index.cache_clear()
    assert "reconstruction" not in plan(request(world, members=bare, caption="a face of a person")).left_out
    with pytest.raises(RequestError, match="attack 'reconstruction': it needs captions"):
        plan(request(world, members=bare, attacks=("reconstruction",)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "{w}/model", "--attacks", "los"], "did you mean 'loss'"),
        (["--model", "{w}/model", "--set", "settings.loss.noise=3"], "did you mean 'noises'"),
        (["--model", "{w}/model", "--set", "picture=3"], "unknown key"),
        (["--model", "{w}/model", "--fpr", "0.01"], "at least 100 pictures are needed"),
        (["--model", "{w}/model", "--generated", "{w}/other"], "either a model, or a folder"),
        ([], "either a model, or a folder"),
        (["--model", "{w}/nowhere"], "no such file or folder"),
        (["--model", "{w}/lora"], "this is an adapter; name the model that it belongs to with --base"),
        (["--model", "{w}/lora", "--base", "tiny", "--attacks", "loss"], "lora"),
        (["--model", "{w}/model.ckpt"], "pickle"),
        (["--model", "{w}/model", "--attacks", "gsa1"], "it learns from a shadow model"),
        (["--model", "{w}/model", "--shadow", "{w}/members"], "is both in members"),
        (["--model", "{w}/model", "--auxiliary", "{w}/empty"], "no pictures in it"),
    ],
)
def test_mistakes_exit_2_before_any_work(world, tmp_path, capsys, monkeypatch, arguments, message):  # noqa: PLR0917
    read_index.cache_clear()
    monkeypatch.chdir(tmp_path)
    (world / "empty").mkdir(exist_ok=True)
    (world / "model.ckpt").write_bytes(b"x")
    given = ["audit", "--members", f"{world}/members", "--nonmembers", f"{world}/nonmembers"]
    assert main([*given, *(text.format(w=world) for text in arguments)]) == 2
    assert message in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_an_unreadable_picture_is_named_and_left_out_when_asked(world, tmp_path):
    members = tmp_path / "members"
    write_people(members, "north", range(200, 209), size=32)
    (members / "broken.png").write_bytes(b"not a picture")
    with pytest.raises(RequestError, match=r"broken\.png"):
        plan(request(world, members=members))
    read_index.cache_clear()
    heard = []
    planned = plan(Audit(**{**request(world, members=members).model_dump(), "skip_unreadable": True}), heard.append)
    assert planned.sets["members"].spec.count == 18 and any("1 of 19 pictures left out" in line for line in heard)
