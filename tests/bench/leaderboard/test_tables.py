"""One definition per table: what one form shows, all show; nothing is left out without a word."""

import csv
import html
import io
import json
import re
from typing import Annotated

import fake_rows
import numpy as np
import pytest
from matplotlib.text import Text

from bench import axes
from bench.leaderboard import figures, texts
from bench.leaderboard.attachments import Attachments
from bench.leaderboard.canvas import Point, label_points, new
from bench.leaderboard.fields import details, fields, metrics
from bench.leaderboard.rank import Campaign, join
from bench.leaderboard.render import render
from bench.leaderboard.row import Row
from bench.leaderboard.tables import attack_table, tables

TEXTS = ("table", "md", "latex", "html")


@pytest.fixture(scope="module")
def rows():
    return fake_rows.quick()


@pytest.fixture(scope="module")
def board(rows):
    return join(rows, fake_rows.attachments_for(rows, sheets=False), fake_rows.campaign())


def plain(text):
    """A form's text without its mark-up, so that forms can be compared."""
    if text.startswith("<!doctype"):
        text = re.sub(r"<[^>]+>", " ", text)
    text = html.unescape(text).replace("\\textless{}", "<").replace("{[}", "[").replace("{]}", "]").replace("$-$", "-")
    text = text.replace("& --", "& –").replace("−", "-").replace("\\", "")
    return re.sub(r"\s+", " ", text)


@pytest.mark.parametrize("form", TEXTS)
def test_every_form_has_every_table_column_and_line(rows, board, form):
    text = plain(render(rows, fake_rows.attachments_for(rows, sheets=False), fake_rows.campaign(), form, width=200))
    for table in [*tables(board), attack_table(board)]:
        assert table.title in text
        for column in table.shown("text"):
            for word in column.title.split():
                assert word in text, column.title
            if column.kind == "number":
                for line in table.lines:
                    assert column.value(line).text in text


@pytest.mark.parametrize("form", TEXTS)
def test_every_form_says_what_it_ranks_by_and_what_the_usual_setting_is(rows, board, form):
    text = plain(render(rows, {}, fake_rows.campaign(), form, width=200))
    assert "Ranks are ordered by it." in text
    for entry in board.section("ranked"):
        assert f"{entry.bound:+.2f}".replace("0.", ".").replace("+.00", ".00").replace("-.00", ".00") in text
    for title, value in (("negatives", "shadow"), ("epochs", "60"), ("fine-tuning", "full")):
        assert f"{title} {value}" in text


def test_no_row_is_left_out_of_a_table(rows, board):
    listed = [entry.row.cell for table in tables(board) for entry in table.lines]
    assert sorted(listed) == sorted(row.cell for row in rows)


def test_a_column_without_a_number_is_told_of_and_not_shown():
    bare = fake_rows.one("c", fake_rows.HEADLINE, 0.6, tpr_at_fpr={}, base_auc=None, base_auc_ci=None)
    table = tables(join([bare]))[0]
    assert "base" not in {column.key for column in table.columns} and "base AUC" in table.remark
    for form in ("table", "md", "html", "latex"):
        assert "No row here has a number for: base AUC." in plain(render([bare], {}, None, form, width=200))


# ---- an axis is declared once


DEFENCE = axes.Axis("defence", "target", "none", "what the target is defended with")


class MoreAxes(axes.Axes):
    """The axes, and one that a test adds."""

    defence: Annotated[str | None, DEFENCE] = None


@pytest.fixture
def defended(monkeypatch):
    monkeypatch.setitem(axes.AXES, "defence", DEFENCE)
    made = []
    for cell, value in (("a", "none"), ("b", "dp_sgd"), ("c", "none")):
        row = fake_rows.one(cell, fake_rows.HEADLINE | {"epochs": 60 if cell != "c" else 15}, 0.6)
        made.append(row.model_copy(update={"axes": MoreAxes(**row.axes.model_dump(), defence=value)}))
    return made


@pytest.mark.parametrize("form", TEXTS)
def test_a_new_axis_is_seen_in_every_form(defended, form):
    text = render(defended, {}, None, form, width=200).replace("\\", "")
    assert "defence dp_sgd" in plain(text) and "defence none" in plain(text)


def test_a_new_axis_is_a_column_a_filter_and_a_detail(defended):
    lines = list(csv.DictReader(io.StringIO(render(defended, {}, None, "csv"))))
    assert sorted(line["defence"] for line in lines) == ["dp_sgd", "none", "none"]
    page = render(defended, {}, None, "html")
    assert '<select name="defence">' in page and "Defence<select" in page
    entry = join(defended).entries[0]
    assert dict(dict(details(entry))["Setting"])["defence"] == entry.row.axes.defence
    assert "defence" in [field.key for field in fields([entry])]


# ---- a row as fields


def test_fields_are_those_of_csv_and_metrics(board):
    first = board.section("ranked")[0]
    found = {field.key: field.value(first) for field in fields(board.entries)}
    numbers = metrics(first)
    assert numbers["delta_auc"] == found["delta_auc"] and numbers["delta_auc_low"] == found["delta_auc_low"]
    assert numbers["delta_bound"] == found["bound"] and numbers["cost/nfe"] == found["nfe"] == 5
    assert numbers["metrics/fid"] == found["metric_fid"] and "p_adjusted" in numbers
    assert not {key for key in numbers if key in ("cell", "status", "evidence")}


def test_details_say_why_a_number_is_missing(board):
    base = next(e for e in board.entries if e.row.axes.aux == "base" and e.section == "ranked")
    numbers = dict(dict(details(base))["Numbers"])
    assert numbers["base AUC"] == "– the negatives are the base model's own pictures"
    assert numbers["TPR at 0.1 % FPR"] == "– too few non-members" and numbers["fid"] == "48.25"
    assert re.fullmatch(r"[+−]?\.\d{3} \[[+−]?\.\d{3}, [+−]?\.\d{3}\]", numbers["Delta"])


# ---- cells that are not made yet


def waiting(cell, **change):
    row = fake_rows.one(cell, fake_rows.HEADLINE | change, 0.5, reason="not made yet")
    return Row.of(row.to_dict() | {"status": "waiting", "measured": {}})


def test_cells_not_made_yet_wait_and_have_not_failed(rows):
    some = [waiting("w1"), waiting("w2", epochs=15)]
    board = join([*rows[:1], *some], {}, fake_rows.campaign())
    assert [entry.row.cell for entry in board.section("waiting")] == ["w1", "w2"]
    first, *others = texts.summary(board)
    assert first.title == "2 of 3 cells are not made yet" and first.tone == "note"
    assert not any("no verdict" in sentence.title for sentence in others)
    for form in TEXTS:
        text = plain(render([*rows[:1], *some], {}, fake_rows.campaign(), form, width=200))
        assert texts.SECTION_TITLES["waiting"] in text and "failed" not in text.replace("epochs 60, failed", "")


def test_a_campaign_that_only_waits_claims_nothing(tmp_path):
    some = [waiting("w1"), waiting("w2", epochs=15)]
    titles = [sentence.title for sentence in texts.summary(join(some))]
    assert titles == ["2 of 2 cells are not made yet", "Synthetic faces"]
    made = render(some, {}, None, "figures", tmp_path)
    assert [path.name for path in made] == ["leaderboard.png"]


# ---- figures


def test_pictures_say_what_they_leave_out(tmp_path, monkeypatch):
    rows = fake_rows.many(120)
    kept = []
    monkeypatch.setattr(figures, "png", lambda figure: kept.append(figure) or b"")
    made = render(rows, {}, fake_rows.campaign("many"), "figures", tmp_path)
    by_name = dict(zip([path.stem for path in made], kept, strict=True))
    board = join(rows, {}, fake_rows.campaign("many"))
    words = [text.get_text() for text in by_name["leaderboard"].axes[0].texts]
    for table in tables(board):
        assert table.title in words
    hidden = sum(int(match[1]) for word in words if (match := re.match(r"and (\d+) more", word)))
    listed = sum(word.startswith("attack ") for word in words) - len(tables(board))  # less the heads
    assert hidden + listed == len(rows)
    label = by_name["delta"].axes[0].get_xlabel()
    shown = len(by_name["delta"].axes[0].get_yticklabels())
    gone = sum(map(int, re.findall(r"(\d+) (?:weaker )?(?:ranked|planted|control|apart)", label)))
    assert shown + gone == sum(entry.row.measured.delta_auc is not None for entry in board.entries)


def test_planted_and_confounded_rows_keep_their_place_in_figures(rows, tmp_path, monkeypatch):
    more = [*rows, *(row.model_copy(update={"cell": f"x{row.cell}"}) for row in fake_rows.many(80))]
    kept = []
    monkeypatch.setattr(figures, "png", lambda figure: kept.append(figure) or b"")
    made = render(more, {}, None, "figures", tmp_path)
    by_name = dict(zip([path.stem for path in made], kept, strict=True))
    labels = [label.get_text() for label in by_name["delta"].axes[0].get_yticklabels()]
    assert sum(label.startswith("planted: ") for label in labels) == 4
    assert sum(label.startswith("confounded: ") for label in labels) == 2
    words = [text.get_text() for text in by_name["leaderboard"].axes[0].texts]
    assert sum("(confounded)" in word for word in words) == 2


def test_labels_stand_at_their_points_and_not_on_each_other():
    figure, panel = new(6, 4)
    panel.set_xlim(0, 1)
    panel.set_ylim(0, 1)
    random = np.random.default_rng(0)
    crowd = [(0.5 + dx, 0.5 + dy) for dx, dy in random.normal(0, 0.02, (8, 2))]
    points = [Point(x, y, f"attack number {i}") for i, (x, y) in enumerate([*crowd, (0.99, 0.5), (0.01, 0.99)])]
    label_points(panel, points)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    by_text = {text.get_text(): text for text in panel.texts}
    for point in points:
        text = by_text[point.label]
        assert text.xy == (point.x, point.y)
        away = np.hypot(*text.xyann)
        assert away < 90 and (text.arrow_patch is not None) == (abs(text.xyann[1]) > 7.5 / 2), "far labels have a line"
    frame = panel.get_window_extent(renderer)
    boxes = [Text.get_window_extent(text, renderer) for text in panel.texts]
    for i, box in enumerate(boxes):
        assert box.x0 >= frame.x0 - 1 and box.x1 <= frame.x1 + 1
        assert not any(box.shrunk(0.9, 0.7).overlaps(other.shrunk(0.9, 0.7)) for other in boxes[i + 1 :])


def test_the_page_carries_what_its_script_shows(rows):
    text = render(rows, {"cell0000": Attachments()}, Campaign("quick"), "html")
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])
    assert [axis["key"] for axis in data["axes"]] == list(axes.AXES)
    first = data["rows"]["cell0000"]
    assert [title for title, _ in first["details"]] == ["Setting", "Numbers", "This row", "Counts, cost, origin"]
    assert first["label"] == "generated set classifier, same source"
