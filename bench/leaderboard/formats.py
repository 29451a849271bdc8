"""Numbers as text: .93 [.91, .95], p < .001, 2.5 M. Every form of a table writes them with these functions."""

from typing import Any

from bench.leaderboard.row import Interval, Row

MISSING = "–"


def number(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """A number as people read it: .93, 1.00, -.02; a dash for None."""
    if value is None:
        return MISSING
    text = f"{abs(value):.{digits}f}"
    sign = "-" if value < 0 and float(text) != 0 else "+" if signed and float(text) != 0 else ""
    return sign + (text[1:] if text.startswith("0.") else text)


def digits_for(ci: Interval | None) -> int:
    """Two digits, three where the interval is narrow enough to mean them."""
    return 3 if ci is not None and ci[1] - ci[0] < 0.02 else 2


def interval(ci: Interval | None, digits: int = 2, signed: bool = False) -> str:
    """An interval, "[.91, .95]"; empty for None."""
    return f"[{number(ci[0], digits, signed)}, {number(ci[1], digits, signed)}]" if ci is not None else ""


def with_interval(value: float | None, ci: Interval | None, signed: bool = False) -> str:
    """A number and its interval, ".93 [.91, .95]"."""
    digits = digits_for(ci)
    return f"{number(value, digits, signed)} {interval(ci, digits, signed)}".strip()


def p_text(p: float | None) -> str:
    """A p-value: < .001, .032, .41."""
    if p is None:
        return MISSING
    return "< .001" if p < 0.001 else number(p, 3 if p < 0.1 else 2)


def amount(value: float | None) -> str:
    """A count, a time or a size, short: 12, 3.4, 1,200, 2.5 M."""
    if value is None:
        return MISSING
    if value >= 1e6:
        return f"{value / 1e6:.3g} M"
    if value >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2g}"


def percent(rate: str | float) -> str:
    """A rate as a percentage: "0.01" is 1 %."""
    return f"{float(rate) * 100:g} %"


def name(value: Any) -> str:
    """A registered name as people read it: generated_set_classifier is "generated set classifier"."""
    return axis_text(value).replace("_", " ")


def axis_text(value: Any) -> str:
    """An axis value: 7.5, 100, class, own captions; a dash where the axis does not apply."""
    if value is None:
        return MISSING
    if isinstance(value, float) and value == int(value):
        return str(int(value))
    return str(value)


def typographic(text: str) -> str:
    """The same with minus signs for hyphens, for what is not meant to be parsed: the page and the figures."""
    return text.replace("-", "−")


def counts_text(row: Row) -> str:
    """How many pictures and people a row rests on."""
    m = row.measured
    parts = [
        f"{amount(m.num_members)} members" if m.num_members is not None else "",
        f"{amount(m.num_nonmembers)} non-members" if m.num_nonmembers is not None else "",
        f"{amount(m.num_identities)} people" if m.num_identities is not None else "",
        f"{m.worlds} world{'' if m.worlds == 1 else 's'}" if m.worlds is not None else "",
    ]
    return ", ".join(part for part in parts if part)
