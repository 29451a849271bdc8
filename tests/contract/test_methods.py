"""Versions belong to methods: code that changed with neither a bump nor an acknowledgement fails here."""

import json

from bench.methods import RECORD, changed, current


def test_no_method_changed_silently():
    lines = changed(json.loads(RECORD.read_text(encoding="utf-8")), current())
    assert not lines, (
        "\n".join(lines) + "\nraise the version where results change; then `python -m bench.methods --acknowledge`"
    )


def test_change_is_seen_and_comments_are_not():
    old = {"attack/x": {"version": 1, "source": "a"}}
    assert changed(old, {"attack/x": {"version": 1, "source": "b"}}) == [
        "attack/x: its code changed, its version 1 did not"
    ]
    assert changed(old, {"attack/x": {"version": 1, "source": "a"}}) == []
