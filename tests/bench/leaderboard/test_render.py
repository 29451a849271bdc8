import csv
import io
import json
import re
from html.parser import HTMLParser

import fake_rows
import pytest

from bench.leaderboard import formats, texts
from bench.leaderboard.attachments import Curve
from bench.leaderboard.findings import verdict
from bench.leaderboard.page_data import thin
from bench.leaderboard.rank import Campaign, join
from bench.leaderboard.render import FORMATS, render
from bench.leaderboard.row import Row
from lmia.specs import UnknownName

EVIL = "<script>alert(1)</script>&\"'</script><img src=x onerror=alert(2)>"


class Parsed(HTMLParser):
    VOID = frozenset({"meta", "input", "img", "br", "link"})

    def __init__(self, text):
        super().__init__()
        self.stack, self.tags, self.attributes, self.scripts = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] == "script":
            self.scripts.append(data)


@pytest.fixture(scope="module")
def rows():
    return fake_rows.quick()


@pytest.fixture(scope="module")
def page(rows):
    return render(rows, fake_rows.attachments_for(rows), fake_rows.campaign(), "html")


def test_json_is_the_rows_with_the_campaign_s_four_fields(rows):
    found = json.loads(render(rows, {}, fake_rows.campaign(), "json"))
    assert len(found) == len(rows)
    by_cell = {row.cell: row for row in rows}
    for value in found:
        extra = {key: value.pop(key) for key in ("benchmark", "reported", "p_adjusted", "rank")}
        assert Row.of(value) == by_cell[value["cell"]]
        assert extra["benchmark"] == "quick"
    assert "NaN" not in render(rows, {}, None, "json")


def test_csv_is_rectangular_and_empty_where_a_number_is_missing(rows):
    found = list(csv.DictReader(io.StringIO(render(rows, {}, fake_rows.campaign(), "csv"))))
    assert len(found) == len(rows)
    failed = next(line for line in found if line["status"] == "failed")
    assert failed["auc"] == failed["delta_auc_low"] == failed["tpr_at_fpr_0.01"] == ""
    first = found[0]
    assert first["rank"] == "1" and float(first["delta_auc_low"]) < float(first["delta_auc"])


def test_csv_defuses_formulas():
    row = fake_rows.one("c", fake_rows.HEADLINE | {"source": "=HYPERLINK(1)"}, 0.6)
    assert next(csv.DictReader(io.StringIO(render([row], {}, None, "csv"))))["source"] == "'=HYPERLINK(1)"


@pytest.mark.parametrize("format", [f for f in FORMATS if f != "figures"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_few_rows(rows, format, count):
    assert render(rows[:count], {}, None, format)


def test_table_lists_every_section(rows):
    text = render(rows, {}, fake_rows.campaign(), "table", width=180)
    for section, title in texts.SECTION_TITLES.items():
        assert (title in text) == (section != "waiting")
    assert "+.18 [+.14, +.22]" in text and "out of memory" in text and "\x1b" not in text
    assert all(len(line) <= 180 for line in text.splitlines())


def test_markdown_escapes(rows):
    row = fake_rows.one("c", fake_rows.HEADLINE | {"source": "a|b<i>"}, 0.6, status="failed", reason=EVIL)
    text = render([row], {}, None, "md")
    assert "<script" not in text and "<i>" not in text and "a\\|b" in text


def test_unknown_format(rows):
    with pytest.raises(UnknownName, match="html"):
        render(rows, {}, None, "htm")


def test_out_writes_files(rows, tmp_path):
    (path,) = render(rows, {}, None, "md", tmp_path / "deep" / "board.md")
    assert path.read_text(encoding="utf-8").startswith("# all")


def test_html_is_well_formed_and_self_contained(page):
    parsed = Parsed(page)
    assert parsed.stack == [] and parsed.tags.count("table") >= 6
    outside = [v for k, v in parsed.attributes if k in ("src", "href") and not v.startswith(("#", "data:image/"))]
    assert outside == [] and "@import" not in page and "url(" not in page
    assert "http://www.w3.org/2000/svg" in page and len(re.findall(r"https?://", page)) == 1


def test_html_has_everything_without_scripts(page, rows):
    for text in (
        "What this shows",
        "How to read this",
        "synthetic evidence",
        "what is left is .02",
        "CUDA out of memory &lt;4 GiB&gt;",
        "only the members carry",
        "+.18",
        "[+.14, +.22]",
        "How each number was computed",
    ):
        assert text.replace("'", "&#39;") in page or text in page.replace("−", "-"), text
    for row in rows:
        assert f'data-cell="{row.cell}"' in page
    assert page.count("data:image/") == 7  # one for each target, however many rows share it


def test_html_carries_its_data(page, rows):
    data = json.loads(Parsed(page).scripts[0])
    assert set(data["rows"]) == {row.cell for row in rows}
    first = data["rows"][rows[0].cell]
    assert Row.of(first["row"]) == rows[0]
    assert len(first["curves"]) == 2 and first["curves"][0]["fpr"][0] == 0 and first["curves"][0]["fpr"][-1] == 1


def test_html_escapes_everything():
    axes = fake_rows.HEADLINE | dict.fromkeys(("source", "aux", "attack", "captions", "base", "prompt"), EVIL)
    rows = [
        fake_rows.one("a" + EVIL, axes, 0.6, reason=EVIL, flags=[EVIL], metrics={EVIL: 1.0}),
        fake_rows.one("b", axes | {"epochs": 3}, 0.6, status="failed", reason=EVIL),
        fake_rows.one("c", axes | {"query": "other_source"}, 0.9, estimand="cross_source", role="reference"),
    ]
    attachments = fake_rows.attachments_for(rows)
    text = render(rows, attachments, Campaign(EVIL, title=EVIL, description=EVIL), "html")
    parsed = Parsed(text)
    assert parsed.stack == [] and parsed.tags.count("script") == 2
    assert not any(key.startswith("on") for key, _ in parsed.attributes)
    assert "onerror" not in [key for key, _ in parsed.attributes]
    assert json.loads(parsed.scripts[0])["campaign"] == EVIL


def test_html_of_many_rows_stays_readable():
    rows = fake_rows.many(300)
    text = render(rows, {}, fake_rows.campaign("many"), "html")
    assert text.count("data-cell=") == 300 and len(text) < 3_000_000


def test_thinned_curves_keep_ends_and_low_fpr():
    curve = fake_rows.curve("A", 0.8, 0)
    fpr, tpr = thin(curve, 24)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1) and len(fpr) <= 26
    assert fpr == sorted(fpr) and sum(f < 0.1 for f in fpr) >= 6
    straight = Curve("A", [0, 0, 0, 1, 1], [0, 0.5, 1, 1, 1])
    assert thin(straight, 24) == ([0, 0, 1], [0, 1, 1])


def test_a_delta_is_shown_as_a_leak_only_if_the_adjusted_p_value_agrees():
    assert verdict((0.01, 0.12)) == "leak" == verdict((0.01, 0.12), 0.04)
    assert verdict((0.01, 0.12), 0.053) == "none" == verdict((-0.1, 0.1), 0.01)
    assert verdict((-0.2, -0.1)) == "below" and verdict(None) == ""


def test_numbers():
    assert formats.number(0.932) == ".93" and formats.number(1) == "1.00" and formats.number(-0.021) == "-.02"
    assert formats.number(0.004, signed=True) == ".00" and formats.number(-0.001) == ".00"
    assert formats.number(None) == formats.MISSING
    assert formats.with_interval(0.18, (0.14, 0.22), signed=True) == "+.18 [+.14, +.22]"
    assert formats.with_interval(0.5123, (0.51, 0.515)) == ".512 [.510, .515]"
    assert formats.p_text(0.0001) == "< .001" and formats.p_text(0.032) == ".032"
    assert formats.amount(3840) == "3,840" and formats.amount(2_500_000) == "2.5 M" and formats.amount(0.25) == "0.25"


def test_figures(rows, tmp_path):
    made = render(rows, fake_rows.attachments_for(rows, sheets=False), fake_rows.campaign(), "figures", tmp_path)
    assert [path.name for path in made] == [
        f"{name}.png" for name in ("leaderboard", "delta", "source", "epochs", "cost", "roc")
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in made)
    assert render([], {}, None, "figures", tmp_path) == []


def test_the_roc_painter_leaves_nothing_behind():
    from bench.leaderboard.roc import RocPainter

    painter, one, two = RocPainter(), fake_rows.curve("A", 0.9, 1), fake_rows.curve("A", 0.6, 2)
    first = painter.png([one])
    assert painter.png([two]) != first and painter.png([one]) == first


def test_join_keeps_order_stable(rows):
    cells = [entry.row.cell for entry in join(rows).entries]
    assert cells == [entry.row.cell for entry in join(rows[::-1]).entries]
