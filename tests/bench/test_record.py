"""What a campaign asked for, kept and read back: cells without a row wait or have failed, by name."""

import pytest

from bench import campaign
from bench.cells import load
from bench.driver import Outcome
from bench.record import CampaignRecord, campaign_names
from bench.store import Store
from lmia.specs import RequestError


def test_what_was_asked_is_kept_and_unmade_cells_wait_or_have_failed(tmp_path):
    store, overrides = Store(str(tmp_path)), ["pictures=18", "suite=[{epochs: 2}]"]
    benchmark = load("tiny", overrides)
    asked = campaign.questions(benchmark)
    campaign.record(benchmark, asked, overrides, store)
    kept = CampaignRecord.read("tiny", store)
    assert campaign_names(store) == ["tiny"]
    assert [cell.cell for cell in kept.cells] == [q.row.address for q in asked]
    assert kept.overrides == tuple(overrides) and kept.benchmark["pictures"] == 18
    assert kept.default["steps"] == 2 and kept.suite[0]["epochs"] == 2
    nearest = next(cell for cell in kept.cells if cell.axes["attack"] == "loss")
    assert "guidance" not in nearest.axes and nearest.access == "eps" and nearest.shadow == "none"

    bad = asked[3].row.address
    campaign.note_failures("tiny", asked, Outcome(failed={bad: "no disk", "elsewhere": "no matter"}), store)
    rows, _, about = campaign.answers("tiny", store)
    assert [row.status for row in rows] == ["failed" if row.cell == bad else "waiting" for row in rows]
    assert rows[3].reason == "no disk" and rows[0].reason == "not made yet"
    assert about.default == kept.default and about.suite == kept.suite
    with pytest.raises(RequestError, match=r"no campaign 'quick' .*there: tiny"):
        campaign.answers("quick", store)


def test_an_old_record_is_read(tmp_path):
    store = Store(str(tmp_path))
    cell = {"cell": "a", "axes": {"attack": "loss"}, "estimand": "same_source", "role": "ranked", "flags": []}
    store.write_json(
        "campaigns/old.json",
        {
            **{"name": "old", "title": "", "description": "", "default": {}, "overrides": [], "benchmark": {}},
            **{"revision": "x", "asked_at": "", "failed": {}},
            "cells": [{**cell, "blocks": [], "title": "", "evidence": "synthetic", "access": "eps", "shadow": None}],
        },
    )
    rows, _, about = campaign.answers("old", store)
    assert rows[0].status == "waiting" and about.suite is None
