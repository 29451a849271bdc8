"""The base of every specification: what changes a result, never how it is computed.

A spec is frozen, refuses unknown keys and can say its identity: the fields that differ from their defaults.
The identity is what an artifact's address is made of, so a new field with a neutral default keeps old
addresses; that a *changed* default does not go unnoticed is the store's business (the resolved spec lies
beside each artifact and is compared on reuse).
"""

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


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

    def __init__(self, noun: str, name: object, known: Iterable[str]):
        known = sorted(known)
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        super().__init__(f"unknown {noun} {name!r}{hint} (known: {', '.join(known) or 'none'})")


def explain(error: ValidationError, spec: type[BaseModel], where: str) -> RequestError:
    """A pydantic error as one line a mistake, naming field, value and what is allowed."""
    lines = []
    for item in error.errors():
        path = ".".join(str(part) for part in item["loc"]) or "(whole)"
        if item["type"] == "extra_forbidden":
            parent: Any = spec
            for part in item["loc"][:-1]:
                field = getattr(parent, "model_fields", {}).get(part)
                parent = getattr(field, "annotation", None)
            known = list(getattr(parent, "model_fields", {}))
            lines.append(str(UnknownName(f"key at {path}", item["loc"][-1], known)))
        else:
            lines.append(f"{path} = {item['input']!r}: {item['msg']}")
    return RequestError(f"{where}: " + "; ".join(lines))
