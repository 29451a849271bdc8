"""The public API: its names and signatures, typed, light to import; what it says of mistakes."""

import inspect
import subprocess
import sys
from importlib import resources

import numpy as np
import pyarrow as pa
import pytest

import bench
import lmia
from lmia.specs import RequestError

NAMES = {
    lmia: "Attack Denoiser Estimate Evaluation Method Pictures Probe RequestError evaluate load score",
    bench: "InfrastructureError Row Run audit leaderboard run",
}
SIGNATURES = {
    lmia.load: "(model, *, base=None, device='auto', dtype='float32')",
    lmia.score: "(model, pictures, attacks, *, base=None, caption=None, seed=0, batch=16)",
    lmia.evaluate: "(scores, *, member='member', by=(), lower_is_member=False, against=None)",
    bench.run: "(preset, *, store='./store', overrides=(), runtime=None, retry=False, track=True, tell=silent)",
    bench.audit: "(*, members, nonmembers, model=None, base=None, out=None, store='./store', runtime=None, "
    "retry=False, tell=silent, command=None, **settings)",
    bench.leaderboard: "(name=None, *, store='./store')",
}


@pytest.mark.parametrize("package", NAMES)
def test_the_public_names_are_these(package):
    assert sorted(package.__all__) == NAMES[package].split()
    assert all(hasattr(package, name) for name in package.__all__)
    assert resources.files(package).joinpath("py.typed").is_file()
    with pytest.raises(AttributeError, match="lod"):
        getattr(package, "lod")  # noqa: B009 - what a person's typing does


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda f: f.__name__)
def test_the_signatures_are_these(function):
    def plain(p):
        default = "" if p.default is p.empty else f"={getattr(p.default, '__name__', repr(p.default))}"
        return f"**{p.name}" if p.kind is p.VAR_KEYWORD else f"{p.name}{default}"

    parameters = list(inspect.signature(function).parameters.values())
    positional = [plain(p) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert (
        f"({', '.join([*positional, '*', *(plain(p) for p in parameters[len(positional) :])])})" == SIGNATURES[function]
    )
    assert function.__doc__ and "Args:" in function.__doc__


def test_functions_stay_where_the_packages_of_their_names_are_imported():
    code = (
        "import bench, bench.audit.request, bench.leaderboard.row\n"
        "from bench.audit import request; from bench.leaderboard import row\n"
        "assert callable(bench.audit) and callable(bench.leaderboard) and request.Audit and row.Row is bench.Row"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def scores():
    random = np.random.default_rng(0)
    ids = [f"p{n}" for n in range(60)]
    table = {
        "id": ids * 2,
        "person": [f"person {n // 2}" for n in range(60)] * 2,
        "attack": ["good"] * 60 + ["bad"] * 60,
        "score": np.concatenate([random.normal(size=60) + 2 * (np.arange(60) < 30), random.normal(size=60)]),
    }
    return pa.table(table), ids[:30]


def test_evaluate_takes_a_table_and_the_members_ids(tmp_path):
    table, members = scores()
    found = lmia.evaluate(table, member=members, by=["attack"], against="attack=bad")
    assert [group["group"]["attack"] for group in found.groups] == ["good", "bad"]
    assert (
        found.groups[0]["auc"] > 0.8 and found.groups[0]["auc_ci"][0] > 0.6 and found.comparisons[0]["difference"] > 0
    )
    import pyarrow.parquet as pq

    labelled = table.append_column("member", pa.array([i in members for i in table["id"].to_pylist()]))
    pq.write_table(labelled.rename_columns(["id", "identity", "attack", "score", "member"]), tmp_path / "s.parquet")
    again = lmia.evaluate(tmp_path / "s.parquet", by=["attack"], against="attack=bad")
    assert (again.groups, again.comparisons) == (found.groups, found.comparisons)


def test_score_is_the_pass_of_the_harness_with_a_row_per_attack_and_picture(tmp_path):
    from PIL import Image

    from lmia.attacks import FitInputs, FitRun
    from lmia.attacks.generated_set_mean import GeneratedSetMean
    from lmia.attacks.loss import Loss
    from lmia.attacks.pia import Pia
    from lmia.attacks.scoring import score_pass
    from lmia.data.sources.imagefolder import read_folder

    for person in "ab":
        (tmp_path / person).mkdir()
        for photo in range(2):
            noise = np.random.default_rng([ord(person), photo]).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / person / f"{photo}.png")
    model = lmia.load("random", device="cpu")
    attacks = [Loss(t=200, noises=1), Loss(noises=1), Pia()]
    table = lmia.score(model, tmp_path, attacks, caption="a face")
    pictures = read_folder(tmp_path, model.size, "a face")
    assert table["id"].to_pylist() == pictures.ids * 3
    assert table["person"].to_pylist() == ["a", "a", "b", "b"] * 3
    names = ["loss(t=200, noises=1)", "loss(noises=1)", "pia"]
    assert table["attack"].to_pylist() == [name for name in names for _ in range(4)]
    expected = score_pass([(attack, None) for attack in attacks], pictures, model).scores
    assert table["score"].to_pylist() == np.concatenate(expected).tolist()
    mean = GeneratedSetMean()
    with pytest.raises(RequestError, match="needs a learned state"):
        lmia.score(model, pictures, [mean], base=model)
    learned = mean.fit(FitInputs(positives=pictures, base=model), FitRun())
    both = lmia.score(model, pictures, [(mean, learned), Pia()], base=model)
    assert both["attack"].to_pylist() == ["generated_set_mean"] * 4 + ["pia"] * 4
    with pytest.raises(RequestError, match="pia is asked for twice"):
        lmia.score(model, pictures, [Pia(), Pia()])
    with pytest.raises(RequestError, match="needs a base"):
        from lmia.attacks.calibrated import Calibrated

        lmia.score(model, pictures, [Calibrated()])


def test_mistakes_are_named():
    table, members = scores()
    with pytest.raises(RequestError, match="1 ids have no score, such as 'nobody'"):
        lmia.evaluate(table, member=[*members, "nobody"])
    with pytest.raises(RequestError, match="no such file or folder"):
        lmia.load("./nothing")
    with pytest.raises(RequestError, match="unknown preset 'quik'; did you mean 'quick'"):
        bench.run("quik")
    with pytest.raises(RequestError, match="did you mean 'attacks'"):
        bench.audit(members="a", nonmembers="b", model="tiny", atacks=["loss"])
    with pytest.raises(RequestError, match="did you mean 'workers'"):
        bench.run("tiny", runtime={"wokers": 2})
    with pytest.raises(RequestError, match=r"did you mean 'real'"):
        bench.run("tiny", overrides={"default.aux": "reel"})


def test_another_distribution_s_attacks_are_found_by_entry_point(tmp_path):
    (tmp_path / "other-1.0.dist-info").mkdir()
    (tmp_path / "other-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (tmp_path / "other-1.0.dist-info" / "entry_points.txt").write_text("[lmia.data.marks]\nmine = other_mark\n")
    (tmp_path / "other_mark.py").write_text(
        "from lmia.data.marks import MARKS, Watermark\n\n\n"
        "@MARKS.register('mine')\nclass Mine(Watermark):\n    version = 1\n"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from lmia.data.marks import MARKS; print(MARKS.names())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'mine'" in run.stdout and "'visible'" in run.stdout
