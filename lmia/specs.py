"""The base of every specification: what changes a result, never how it is computed.

A spec is frozen, refuses unknown keys and can say its identity: the fields that differ from their defaults.
The identity is what an artifact's address is made of, so a new field with a neutral default keeps old
addresses; that a *changed* default does not go unnoticed is the store's business (the resolved spec lies
beside each artifact and is compared on reuse).
"""

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

MOST = 40
"""How many known names a message lists."""


class Spec(BaseModel):
    """A frozen specification. Subclasses describe and bound every field."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def identity(self) -> dict[str, Any]:
        """Fields that differ from their defaults, as plain JSON values, nested specs likewise."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def resolved(self) -> dict[str, Any]:
        """All fields, defaults included, as plain JSON values."""
        return self.model_dump(mode="json")


class RequestError(ValueError):
    """A mistake in what was asked for: reported before any work, exit status 2."""


class UnknownName(RequestError):
    """A name that is not among the known ones; the message carries the nearest match."""

    def __init__(self, noun: str, name: object, known: Iterable[str], where: str = ""):
        known = sorted(known)
        told = ", ".join(known[:MOST]) + (f" and {len(known) - MOST} more" if len(known) > MOST else "")
        super().__init__(f"{where}unknown {noun} {shortened(name)}{_nearest(name, known)} (known: {told or 'none'})")


def _nearest(name: object, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name)[:200], list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def explain(error: ValidationError, spec: type[BaseModel], where: str) -> RequestError:
    """A pydantic error as one line, every mistake once, naming field, value and what is allowed."""
    lines = []
    for item in error.errors():
        path, kind = ".".join(str(part) for part in item["loc"]), item["type"]
        if kind == "extra_forbidden":
            lines.append(str(UnknownName(f"key at {path}", item["loc"][-1], _keys_at(spec, item["loc"][:-1]))))
        elif kind == "missing":
            lines.append(f"{path} is missing")
        elif kind in ("value_error", "assertion_error"):
            told = str(item["ctx"]["error"]) if "ctx" in item else item["msg"]
            lines.append(told if not path or told.startswith(path) else f"{path}: {told}")
        else:
            near = _nearest(item["input"], re.findall(r"'([^']*)'", str(item.get("ctx", {}).get("expected", ""))))
            lines.append(f"{path or where} = {shortened(item['input'])}: {item['msg']}{near}")
    return RequestError(f"{where}: " + "; ".join(dict.fromkeys(lines)))


def shortened(value: object, most: int = 80) -> str:
    """How a value is written in a message: in full where it is short."""
    text = repr(value)
    return text if len(text) <= most else f"{text[: most - 10]} ... {text[-5:]}"


def _keys_at(spec: object, path: Iterable[int | str]) -> list[str]:
    """The keys that a specification has at a place, through lists, tuples and what else holds one."""
    here: Any = spec
    for part in path:
        if isinstance(part, str):
            field = getattr(here, "model_fields", {}).get(part)
            here = getattr(field, "annotation", here)
        here = next((one for one in _unpacked(here) if hasattr(one, "model_fields")), here)
    return list(getattr(here, "model_fields", {}))


def _unpacked(kind: object) -> Iterator[object]:
    yield kind
    for inner in get_args(kind):
        yield from _unpacked(inner)
