"""`lmia evaluate`: what it reads, what it says, and how it refuses."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from bench.cli import app
from lmia.specs import RequestError

SHARED = Path(__file__).parents[3] / "shared"


def lmia_evaluate(capsys, *arguments):
    # Not `main`, which turns mistakes into a line and an exit status.
    app(["evaluate", *(str(a) for a in arguments)])
    return capsys.readouterr().out


def as_json(capsys, *arguments):
    def refuse(constant):
        raise AssertionError(f"{constant} in the output")

    return json.loads(lmia_evaluate(capsys, *arguments, "--format", "json"), parse_constant=refuse)


def columns(num=60, seeds=(0,), seed=0, **more):
    """Columns of a file of scores, `num` pictures per seed, three photos a person."""
    random = np.random.default_rng(seed)
    member = np.tile(np.arange(num) < num // 2, len(seeds))
    return {
        "id": [f"p{i}" for _ in seeds for i in range(num)],
        "identity": [f"person {i // 3}" for _ in seeds for i in range(num)],
        "seed": [s for s in seeds for _ in range(num)],
        "member": member.tolist(),
        "score": (random.normal(size=member.size) + member).tolist(),
    } | more


def write(path, table):
    if path.suffix == ".parquet":
        parquet.write_table(pa.table(table), path)
        return path
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))
    return path


def test_all_formats_give_the_same_numbers(tmp_path, capsys):
    table = columns(seeds=(0, 1))
    found = []
    for suffix in ("parquet", "csv", "tsv"):
        result = as_json(capsys, write(tmp_path / f"scores.{suffix}", table), "--by", "seed")
        found.append({key: value for key, value in result.items() if key != "file"})
    assert found[0] == found[1] == found[2]
    assert [g["group"] for g in found[0]["groups"]] == [{"seed": 0}, {"seed": 1}]


def test_keys_of_a_group(tmp_path, capsys):
    (group,) = as_json(capsys, write(tmp_path / "s.csv", columns()))["groups"]
    required = ("auc", "auc_ci", "tpr_at_fpr", "num_members", "num_nonmembers", "balanced_accuracy", "warnings")
    assert set(required) <= set(group)
    assert group["num_members"] == group["num_nonmembers"] == 30 and group["num_identities"] == 20
    assert group["auc_ci"][0] < group["auc"] < group["auc_ci"][1]
    assert list(group["tpr_at_fpr"]) == ["0.1", "0.01", "0.001"]
    assert group["tpr_at_fpr"]["0.01"] is None and any("100 non-members" in w for w in group["warnings"])
    assert set(group["tpr_at_fpr"]["0.1"]) >= {"tpr", "ci", "true_positives", "false_positives"}
    assert group["balanced_accuracy"] is None and any("calibration split" in w for w in group["warnings"])


def test_people_widen_the_interval(tmp_path, capsys):
    random = np.random.default_rng(0)
    own = np.repeat(random.normal(size=40), 8)
    table = columns(320) | {"score": own.tolist(), "identity": [f"x{i // 8}" for i in range(320)]}
    (with_people,) = as_json(capsys, write(tmp_path / "a.csv", table))["groups"]
    del table["identity"]
    (without,) = as_json(capsys, write(tmp_path / "b.csv", table))["groups"]
    assert np.diff(with_people["auc_ci"]) > 2 * np.diff(without["auc_ci"])
    assert any("identity" in w for w in without["warnings"])


def test_seeds_are_summarised_both_ways(tmp_path, capsys):
    path = write(tmp_path / "s.parquet", columns(seeds=(0, 1, 2, 3)))
    by_seed = as_json(capsys, path, "--by", "seed")
    (summary,) = by_seed["over_seeds"]
    assert len(by_seed["groups"]) == summary["num_seeds"] == 4
    assert summary["auc"] == pytest.approx(np.mean([g["auc"] for g in by_seed["groups"]]))
    assert summary["auc_per_seed"] == [g["auc"] for g in by_seed["groups"]]
    assert summary["num_members"] == 30
    assert summary["auc_ci_seeds_only"][0] < summary["auc"] < summary["auc_ci_seeds_only"][1]
    # Asked for without the seed, the one result is the summary: seeds are never pooled as if they were pictures.
    (pooled,) = as_json(capsys, path)["groups"]
    assert {**pooled, "group": {}} == summary
    (alone,) = as_json(capsys, write(tmp_path / "one.parquet", columns(seeds=(7,))))["groups"]
    assert "num_seeds" not in alone


def test_seeds_that_share_their_pictures_do_not_average_them_away(tmp_path, capsys):
    random = np.random.default_rng(1)
    table = columns(200, seeds=range(5))
    picture = np.tile(random.normal(size=200), 5)
    table["score"] = (picture + 0.1 * random.normal(size=1000) + 0.5 * np.array(table["member"])).tolist()
    (result,) = as_json(capsys, write(tmp_path / "s.parquet", table))["groups"]
    assert np.diff(result["auc_ci"]) > 4 * np.diff(result["auc_ci_seeds_only"])
    del table["id"], table["identity"]
    (unnamed,) = as_json(capsys, write(tmp_path / "u.parquet", table))["groups"]
    assert np.diff(unnamed["auc_ci"]) > 4 * np.diff(unnamed["auc_ci_seeds_only"])
    assert any("recognised across seeds" in w for w in unnamed["warnings"])


def test_a_threshold_comes_from_the_calibration_split(tmp_path, capsys):
    table = columns(120)
    table["split"] = ["calibration" if (i // 3) % 2 else "report" for i in range(120)]
    (group,) = as_json(capsys, write(tmp_path / "s.csv", table))["groups"]
    assert group["num_members"] == 30
    assert 0.5 < group["balanced_accuracy"] < 1 and group["balanced_accuracy_ci"][0] < group["balanced_accuracy"]
    assert group["decision"]["threshold"] is not None and 0 <= group["decision"]["fpr"] <= 1
    # Report scores do not move the threshold, calibration scores do.
    moved = table | {
        "score": [s - 9 if k == "report" else s for s, k in zip(table["score"], table["split"], strict=True)]
    }
    (shifted,) = as_json(capsys, write(tmp_path / "m.csv", moved))["groups"]
    assert shifted["decision"]["threshold"] == group["decision"]["threshold"]
    assert shifted["balanced_accuracy"] == 0.5
    seeds = columns(120, seeds=(0, 1), split=table["split"] * 2)
    (both,) = as_json(capsys, write(tmp_path / "b.csv", seeds))["groups"]
    assert both["balanced_accuracy_ci"][0] < both["balanced_accuracy"] < both["balanced_accuracy_ci"][1]


def test_distances_and_other_names_for_members(tmp_path, capsys):
    table = columns(200)
    (straight,) = as_json(capsys, write(tmp_path / "s.csv", table))["groups"]
    turned = table | {"score": [-s for s in table["score"]]}
    path = write(tmp_path / "d.csv", turned)
    (lower,) = as_json(capsys, path, "--lower-is-member")["groups"]
    assert lower["auc"] == straight["auc"] and lower["tpr_at_fpr"] == straight["tpr_at_fpr"]
    (higher,) = as_json(capsys, path)["groups"]
    assert higher["auc"] == pytest.approx(1 - straight["auc"])
    assert any("below .5" in w for w in higher["warnings"])
    named = {key: value for key, value in table.items() if key != "member"}
    named["label"] = ["yes" if m else "no" for m in table["member"]]
    named["trained"] = [int(m) for m in table["member"]]
    path = write(tmp_path / "n.csv", named)
    for positive in ("label=yes", "trained"):
        (group,) = as_json(capsys, path, "--positive", positive)["groups"]
        assert group["auc"] == straight["auc"]
    (swapped,) = as_json(capsys, path, "--positive", "label=no")["groups"]
    assert swapped["auc"] == pytest.approx(1 - straight["auc"])


def test_files_are_compared_on_the_same_pictures(tmp_path, capsys):
    table = columns(300)
    random = np.random.default_rng(5)
    worse = table | {"score": (np.array(table["score"]) + 0.3 * random.normal(size=300)).tolist()}
    order = random.permutation(300)
    mixed = {key: [value[i] for i in order] for key, value in worse.items()}
    first, second = write(tmp_path / "a.parquet", table), write(tmp_path / "b.csv", mixed)
    result = as_json(capsys, first, "--against", second)
    (found,) = result["comparisons"]
    assert found["difference"] == pytest.approx(found["auc"] - found["auc_against"])
    assert found["difference_ci"][0] < found["difference"] < found["difference_ci"][1]
    assert np.diff(found["difference_ci"]) < np.diff(result["groups"][0]["auc_ci"]) / 1.5
    assert 0 <= found["p_value"] <= 1
    (same,) = as_json(capsys, first, "--against", first)["comparisons"]
    assert same["difference"] == 0 and same["p_value"] == 1


def test_groups_are_compared_with_one_of_them(tmp_path, capsys):
    parts = [columns(90, seeds=(0, 1), seed=k) for k in range(3)]
    table = {key: [value for part in parts for value in part[key]] for key in parts[0]}
    table["attack"] = [name for name in ("loss", "pia", "blind") for _ in range(180)]
    path = write(tmp_path / "s.parquet", table)
    for by in ("attack", "attack,seed"):
        found = as_json(capsys, path, "--by", by, "--against", "attack=loss")["comparisons"]
        assert [c["group"] for c in found] == [{"attack": "pia"}, {"attack": "blind"}]
        assert all(c["num_seeds"] == 2 for c in found)
    text = lmia_evaluate(capsys, path, "--by", "attack", "--against", "attack=loss")
    assert "difference [95 %]" in text and "pia" in text
    with pytest.raises(RequestError, match="'attack': groups loss, pia, blind"):
        lmia_evaluate(capsys, path, "--by", "attack", "--against", "attack=los")
    with pytest.raises(RequestError, match="not among by"):
        lmia_evaluate(capsys, write(tmp_path / "one.csv", columns()), "--against", "attack=loss")


def test_table_shows_numbers_and_footnotes(tmp_path, capsys):
    path = write(tmp_path / "s.csv", columns(200, seeds=(0, 1)))
    text = lmia_evaluate(capsys, path, "--by", "seed")
    assert "AUC [95 %]" in text and "TPR at FPR 1.0%" in text and "Over seeds" in text
    assert "[1] " in text and "nan" not in text.lower()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": None}, "unknown column 'score'"),
        ({"member": None}, "unknown column 'member'"),
        ({"score": ("abc", 4)}, r"column 'score', row 5: 'abc' is not a number"),
        ({"score": ("", 4)}, r"column 'score', row 5"),
        ({"score": ("nan", 7)}, r"column 'score', row 8: nan is not a finite number \(1 such cells at ids p7\)"),
        ({"score": ("-inf", 0)}, r"column 'score', row 1: -inf.*ids p0"),
        ({"member": ("maybe", 2)}, r"column 'member', row 3: 'maybe' is neither"),
        ({"member": ("2", 2)}, r"column 'member', row 3"),
        ({"member": ("", 2)}, r"column 'member', row 3"),
        ({"id": ("p0", 3)}, r"column 'id', row 4: 'p0' is already in row 1"),
        ({"id": ("", 3)}, r"column 'id', row 4: empty"),
        ({"seed": ("", 3)}, r"column 'seed', row 4: empty"),
    ],
)
def test_mistakes_in_a_cell_name_file_column_and_row(tmp_path, capsys, change, message):
    ((column, what),) = change.items()
    table = columns()
    if what is None:
        del table[column]
    else:
        table[column] = [what[0] if i == what[1] else v for i, v in enumerate(table[column])]
    with pytest.raises(RequestError, match=message) as error:
        lmia_evaluate(capsys, write(tmp_path / "bad.csv", table))
    assert "bad.csv" in str(error.value)


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_missing_and_infinite_scores_in_parquet(tmp_path, capsys, value):
    table = columns()
    table["score"][9] = value
    with pytest.raises(RequestError, match=r"bad\.parquet: column 'score', row 10"):
        lmia_evaluate(capsys, write(tmp_path / "bad.parquet", table))


def test_groups_must_have_both_classes(tmp_path, capsys):
    table = columns(part=["a" if i < 30 else "b" for i in range(60)])
    path = write(tmp_path / "bad.csv", table)
    with pytest.raises(
        RequestError, match=r"bad\.csv: column 'member', row 1: only members among the 30 rows of group"
    ):
        lmia_evaluate(capsys, path, "--by", "part")
    with pytest.raises(RequestError, match=r"row 1: only members among the 60 rows"):
        lmia_evaluate(capsys, write(tmp_path / "one.csv", columns() | {"member": [1] * 60}))
    with pytest.raises(RequestError, match="unknown column 'prat'; did you mean 'part'"):
        lmia_evaluate(capsys, path, "--by", "prat")
    table["part"][5] = ""
    with pytest.raises(RequestError, match=r"column 'part', row 6: empty"):
        lmia_evaluate(capsys, write(tmp_path / "hole.csv", table), "--by", "part")
    with pytest.raises(RequestError, match=r"column 'split', row 1: no row to report on"):
        lmia_evaluate(capsys, write(tmp_path / "s.csv", columns(split=["calibration"] * 60)))
    with pytest.raises(RequestError, match=r"column 'split', row 1: 'holdout' is not one of"):
        lmia_evaluate(capsys, write(tmp_path / "s.csv", columns(split=["holdout"] * 60)))


def test_compared_files_must_have_the_same_pictures(tmp_path, capsys):
    table = columns()
    path = write(tmp_path / "a.csv", table)
    fewer = {key: value[:-1] for key, value in table.items()}
    with pytest.raises(RequestError, match=r"a\.csv: column 'id', row 60: 'p59' is not among the 59 of .*b\.csv"):
        lmia_evaluate(capsys, path, "--against", write(tmp_path / "b.csv", fewer))
    with pytest.raises(RequestError, match=r"a\.csv: column 'id', row 60"):
        lmia_evaluate(capsys, tmp_path / "b.csv", "--against", path)
    swapped = table | {"member": [not m for m in table["member"]]}
    with pytest.raises(RequestError, match=r"a\.csv: column 'member', row 1: id 'p0' is the opposite"):
        lmia_evaluate(capsys, path, "--against", write(tmp_path / "c.csv", swapped))
    bare = {key: table[key] for key in ("member", "score")}
    with pytest.raises(RequestError, match=r"column 'id': needed"):
        lmia_evaluate(capsys, path, "--against", write(tmp_path / "d.csv", bare))
    other = write(tmp_path / "e.csv", table | {"seed": [1] * 60})
    with pytest.raises(RequestError, match="no group"):
        lmia_evaluate(
            capsys,
            write(tmp_path / "f.csv", table | {"k": ["x"] * 60}),
            "--by",
            "k",
            "--against",
            write(tmp_path / "g.csv", table | {"k": ["y"] * 60}),
        )
    assert lmia_evaluate(capsys, path, "--against", other)


def test_files_that_cannot_be_read(tmp_path, capsys):
    with pytest.raises(RequestError, match="no such file"):
        lmia_evaluate(capsys, tmp_path / "none.csv")
    (tmp_path / "scores.xlsx").write_text("x")
    with pytest.raises(RequestError, match=r"ends in \.parquet"):
        lmia_evaluate(capsys, tmp_path / "scores.xlsx")
    (tmp_path / "broken.parquet").write_text("not Parquet")
    with pytest.raises(RequestError, match=r"broken\.parquet: cannot be read"):
        lmia_evaluate(capsys, tmp_path / "broken.parquet")
    for text in ("", "score,member\n"):
        (tmp_path / "empty.csv").write_text(text)
        with pytest.raises(RequestError, match=r"empty\.csv"):
            lmia_evaluate(capsys, tmp_path / "empty.csv")
    (tmp_path / "ragged.csv").write_text("score,member\n1,0\n2,1,3\n")
    with pytest.raises(RequestError, match=r"ragged\.csv, row 2: 3 cells where the header has 2"):
        lmia_evaluate(capsys, tmp_path / "ragged.csv")
    (tmp_path / "twice.csv").write_text("score,member,score\n1,0,1\n2,1,2\n")
    with pytest.raises(RequestError, match="given twice: score"):
        lmia_evaluate(capsys, tmp_path / "twice.csv")
    with pytest.raises(RequestError, match="given twice"):
        lmia_evaluate(capsys, write(tmp_path / "s.csv", columns()), "--by", "seed,seed")


def test_small_and_constant_files_have_no_nan(tmp_path, capsys):
    for k, scores in enumerate(([1, 1], [1, 2], [2, 1], [1, 1, 1, 1], [3, 3, 1, 1], [1, 3, 2, 1])):
        half = len(scores) // 2
        path = write(tmp_path / f"{k}.csv", {"score": scores, "member": [1] * half + [0] * half})
        (group,) = as_json(capsys, path)["groups"]
        assert group["auc_ci"] is not None or any("auc_ci" in w for w in group["warnings"])
        assert lmia_evaluate(capsys, path)


PUBLISHED = {
    ("4", "epochs=400"): "DTU_vs_AAU_unseen_test",
    ("8", ""): "DTU_seen_vs_DTU_unseen_test",
    ("9", ""): "DTU_vs_AAU_unseen_test7",
    ("10", ""): "DTU_vs_AAU_unseen_test11",
    ("7", ""): "DTU_vs_lfw_test",
    ("11", "watermark=visible"): "DTU_wm_vs_AAU_unseen_test",
}


def test_published_scores_are_reproduced(capsys):
    """Table 3 of Holme et al. (VISAPP 2025), recomputed from the per-picture scores published with the paper."""
    scores, reference = SHARED / "published/holme2025_scores.parquet", SHARED / "facts/holme2025_table3.csv"
    if not scores.exists() or not reference.exists():
        pytest.skip(f"{scores} is not here")
    result = as_json(capsys, scores, "--by", "experiment,attack,seed")
    assert len(result["groups"]) == 36
    summaries = {(s["group"]["experiment"], s["group"]["attack"]): s for s in result["over_seeds"]}
    clip = {g["group"]["experiment"]: g for g in result["groups"] if g["group"]["attack"] == "clip_mean"}
    with reference.open() as file:
        rows = {(row["test"], row["variant"]): row for row in csv.DictReader(file)}
    for key, experiment in PUBLISHED.items():
        summary, row = summaries[experiment, "resnet18"], rows[key]
        assert f"{summary['auc']:.4f}" == row["auc_recomputed"]
        assert f"{summary['auc_half_width_as_usually_printed']:.4f}" == row["ci_recomputed"]
        assert f"{clip[experiment]['auc']:.2f}" == row["auc_clip"]
        low, high = summary["auc_ci"]
        assert low < summary["auc"] <= high
        assert np.diff(summary["auc_ci"]) > 0.95 * np.diff(summary["auc_ci_seeds_only"])
    same = summaries["DTU_seen_vs_DTU_unseen_test", "resnet18"]
    # Printed: .53 +- .00. Honest: chance is inside.
    assert same["auc_ci"][0] < 0.5 < same["auc_ci"][1]
    assert np.diff(same["auc_ci"]) > 8 * np.diff(same["auc_ci_seeds_only"]) > 0
