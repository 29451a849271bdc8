import fake_rows
import pytest

from bench.axes import TARGET_AXES
from bench.leaderboard.attachments import Attachments
from bench.leaderboard.rank import Campaign, join, lower_bound, p_of, reported_numbers
from bench.leaderboard.row import Row
from bench.leaderboard.texts import summary
from lmia.metrics.estimates import t_quantile, t_tail


@pytest.fixture(scope="module")
def board():
    rows = fake_rows.quick()
    return join(rows, fake_rows.attachments_for(rows, sheets=False), fake_rows.campaign())


def test_only_sound_rows_are_ranked(board):
    for entry in board.entries:
        row = entry.row
        sound = row.role == "ranked" and row.status == "ok" and row.estimand == "same_source" and not row.confounded
        assert (entry.rank is not None) == sound == (entry.why_unranked is None)
        assert (entry.p_adjusted is not None) == sound
    sections = {entry.section for entry in board.entries}
    assert sections == {"ranked", "cross", "planted", "control", "other", "apart"}


def test_ranks_follow_the_bound_then_delta(board):
    ranked = board.section("ranked")
    assert [entry.rank for entry in ranked] == list(range(1, len(ranked) + 1))
    keys = [(entry.bound, entry.row.measured.delta_auc) for entry in ranked]
    assert keys == sorted(keys, reverse=True)


def test_a_wide_interval_loses_to_a_narrow_one():
    wide = fake_rows.one("wide", fake_rows.HEADLINE, 0.7, delta_auc=0.2, delta_auc_ci=[-0.1, 0.5])
    narrow = fake_rows.one("narrow", fake_rows.HEADLINE | {"epochs": 15}, 0.6, delta_auc=0.1, delta_auc_ci=[0.08, 0.12])
    assert [entry.row.cell for entry in join([wide, narrow]).entries] == ["narrow", "wide"]


def test_bound_is_simultaneous_and_below_delta():
    row = fake_rows.one("c", fake_rows.HEADLINE, 0.6)
    bounds = [lower_bound(row, count) for count in (1, 10, 1000)]
    assert row.measured.delta_auc > bounds[0] > bounds[1] > bounds[2]
    assert lower_bound(row, 1) == pytest.approx(0.1 - 1.645 * row.measured.delta_estimate().se, abs=1e-4)


def test_the_lower_arm_counts():
    row = fake_rows.one("c", fake_rows.HEADLINE, 0.9, delta_auc=0.4, delta_auc_ci=[0.3, 0.42], set_p_value=None)
    assert row.measured.delta_estimate().se == pytest.approx(0.1 / 1.96, abs=1e-4)
    assert p_of(row) < 1e-10


def test_bound_and_p_value_are_those_of_the_rows_own_t():
    """Few worlds: 2 degrees of freedom. A normal's bound from the same interval would be too near to Delta."""
    half = t_quantile(0.975, 2) * 0.02
    row = fake_rows.one("c", fake_rows.HEADLINE, 0.6, delta_auc=0.1, delta_auc_ci=[0.1 - half, 0.1 + half])
    known = {"set_p_value": None, "estimates": {"delta_auc": {"se": 0.02, "df": 2}}}
    kept = Row.of(row.to_dict() | {"schema_version": 2, "measured": row.to_dict()["measured"] | known})
    assert lower_bound(kept, 40) == pytest.approx(0.1 - t_quantile(1 - 0.05 / 40, 2) * 0.02)
    assert lower_bound(kept, 40) < lower_bound(row, 40) - 0.2, "version 1 knows the interval only"
    assert p_of(kept) == pytest.approx(t_tail(5.0, 2)) and join([kept]).entries[0].bound == lower_bound(kept, 1)


def test_p_values(board):
    ranked = [entry for entry in board.entries if entry.rank]
    for entry in ranked:
        assert entry.p_value == entry.row.measured.set_p_value
        assert entry.p_value <= entry.p_adjusted <= 1
    smallest = min(ranked, key=lambda entry: entry.p_value)
    assert smallest.p_adjusted == pytest.approx(min(1, len(ranked) * smallest.p_value))


def test_no_number_no_rank():
    row = fake_rows.one("c", fake_rows.HEADLINE, 0.6, delta_auc=None, delta_auc_ci=None)
    entry = join([row]).entries[0]
    assert entry.section == "apart" and entry.rank is None and entry.why_unranked.startswith("no Delta")


def test_attacks_are_compared_on_the_same_targets(board):
    assert len(board.suite) == 2
    by_attack = {}
    for attack in board.attacks:
        by_attack.setdefault(attack.axes["attack"], []).append(attack)
        assert (attack.rank is None) == (attack.num_targets < attack.num_suite)
        assert attack.bound < attack.delta
    loss = by_attack["loss"][0]
    assert loss.track == ("eps", "caption", "none") and loss.rank == 1
    assert loss.delta == pytest.approx((0.18 + 0.05) / 2)
    assert {a.track[2] for a in by_attack["generated_set_classifier"]} == {"another source", "same source", "none"}


def test_planted_targets_do_not_enter_the_suite(board):
    epochs = {key[TARGET_AXES.index("epochs")] for key in board.suite}
    assert 300 not in epochs


def test_a_given_suite_counts():
    rows = fake_rows.quick()
    target = {axis: fake_rows.HEADLINE[axis] for axis in ("source", "target_mark", "member_mark", "nonmember_mark")}
    target |= {axis: fake_rows.HEADLINE[axis] for axis in ("epochs", "method", "base")}
    board = join(rows, {}, Campaign("quick", suite=(target,)))
    assert len(board.suite) == 1
    assert all(attack.rank is not None for attack in board.attacks)


def test_cells_of_other_campaigns_are_left_out():
    rows = fake_rows.quick()
    assert len(join(rows, {}, Campaign("one", cells=frozenset({rows[0].cell}))).entries) == 1
    with pytest.raises(ValueError, match="several rows"):
        join([rows[0], rows[0]])


def test_reported_numbers_join_by_axes():
    paper = fake_rows.HEADLINE | {"steps": 100, "epochs": 400, "query": "other_source", "base": "sd15", "source": "dtu"}
    entry = join([fake_rows.one("c", paper, 0.86, estimand="cross_source", role="reference")]).entries[0]
    assert entry.reported.auc == 0.86 and "test 4, 400" in entry.reported.source and entry.reported.evidence == "real"
    assert join([fake_rows.one("c", paper | {"query": "same_source"}, 0.5)]).entries[0].reported.auc == 0.53
    assert join([fake_rows.one("c", paper | {"steps": 12}, 0.5, estimand="cross_source")]).entries[0].reported is None


def test_reported_numbers_are_in_the_vocabulary():
    from bench.axes import AUX, PROMPTS, QUERIES

    for number in reported_numbers():
        axes = number["axes"]
        assert axes["aux"] in AUX and axes["prompt"] in PROMPTS and axes["query"] in QUERIES
        assert 0 <= number["auc"] <= 1 and number["source"] and number["evidence"] == "real"


def test_findings_say_what_the_rows_show(board):
    texts = {finding.title: finding.text for finding in summary(board)}
    style = texts["It looks like membership, but it is the style"]
    assert ".93" in style and ".91" in style and "what is left is .02" in style
    assert any("tell members apart" in title for title in texts)
    assert "Planted members are found" in texts
    assert "'part_c'" in texts["What the attack is contrasted with decides what it detects"]
    assert "1.00" in texts["2 rows are confounded by design"]
    assert "2 cells have no verdict" in texts and "Synthetic faces" in texts


def test_silence_is_said_with_its_mde():
    found = summary(join([fake_rows.one("c", fake_rows.HEADLINE, 0.51)]))
    assert found[0].tone == "clear" and "No leak found" in found[0].title and ".06" in found[0].text


def test_a_planted_cell_that_nobody_finds_is_a_warning():
    found = summary(join([fake_rows.one("c", fake_rows.HEADLINE, 0.51, role="planted")]))
    assert any(f.title == "Planted members are not found" and f.tone == "caution" for f in found)


def test_nothing_at_all():
    board = join([])
    assert board.entries == () and board.attacks == () and summary(board)[0].title == "Nothing is ranked"


def test_real_evidence_has_no_synthetic_note():
    row = fake_rows.one("c", fake_rows.HEADLINE, 0.6)
    real = Row.of(row.to_dict() | {"provenance": row.provenance.model_dump() | {"evidence": "real"}})
    board = join([real], {"c": Attachments()})
    assert board.evidence == ["real"] and not any("Synthetic" in f.title for f in summary(board))
