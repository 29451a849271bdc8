"""What no metric can use is refused at the door, with the ids named."""

import numpy as np
import pytest

from lmia.metrics.scores import Scores, ScoreSet, align
from lmia.specs import RequestError

IDS = ["a", "b", "c", "d"]
MEMBER = np.array([True, True, False, False])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_named(value):
    with pytest.raises(RequestError, match="ids b, d"):
        ScoreSet(IDS, np.array([0, value, 1, value]), MEMBER)
    with pytest.raises(RequestError, match="ids b"):
        Scores(IDS, np.array([0, value, 1, 2]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": ["a", "b", "b", "d"]}, "given twice: b"),
        ({"member": np.array([True] * 4)}, "only members among the 4"),
        ({"member": np.zeros(4, int)}, "only non-members"),
        ({"member": np.array([0, 1, 2, 1])}, "ids c"),
        ({"member": np.array([True, False])}, "2 values for 4 ids"),
        ({"scores": np.zeros(3)}, "for 4 ids"),
        ({"scores": np.array(["x", "1", "2", "3"])}, "not numbers"),
        ({"identity": ["p"]}, "1 values for 4 ids"),
        ({"ids": [], "scores": np.zeros(0), "member": np.zeros(0, bool)}, "no pictures"),
    ],
)
def test_what_cannot_be_used_is_refused(changes, message):
    with pytest.raises(RequestError, match=message):
        ScoreSet(**({"ids": IDS, "scores": np.arange(4.0), "member": MEMBER} | changes))


def test_parts_and_counts():
    s = ScoreSet(IDS, np.arange(4, dtype=np.float32), np.array([1, 1, 0, 0]), ["p", None, "p", "q"])
    assert s.scores.dtype == np.float64 and s.member.dtype == bool
    assert (s.num_members, s.num_nonmembers, s.num_identities) == (2, 2, 3)
    assert list(s.members().ids) == ["a", "b"] and s.nonmembers().scores.tolist() == [2.0, 3.0]
    assert s.members().persons() == ["p", "picture b"]


def test_alignment_names_what_differs():
    s = ScoreSet(IDS, np.arange(4.0), MEMBER)
    turned = align(s, IDS[::-1], "twin")
    assert turned.scores.tolist() == [3, 2, 1, 0] and turned.member.tolist() == MEMBER[::-1].tolist()
    with pytest.raises(RequestError, match=r"twin: .*1 missing \(ids e\), 1 too many \(ids d\)"):
        align(s, ["a", "b", "c", "e"], "twin")
