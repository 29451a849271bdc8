"""Plain values: YAML of presets and files, `extends`, merging, `--set a.b=c`, and typed specs from them."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from lmia.specs import RequestError, Spec, UnknownName, explain

S = TypeVar("S", bound=Spec)


def preset_names() -> list[str]:
    """The presets that come with lmia."""
    folder = resources.files("bench.presets")
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))


def read(preset: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The plain values of a preset or YAML file over those that it extends.

    Raises:
        RequestError: no such preset or file, not YAML, or it extends itself.
    """
    if preset in above:
        raise RequestError(f"preset {preset!r} extends itself: {' -> '.join((*above, preset))}")
    path = Path(preset)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise RequestError(f"no such benchmark file: {preset}")
        text = path.read_text(encoding="utf-8")
    elif preset in preset_names():
        text = (resources.files("bench.presets") / f"{preset}.yaml").read_text(encoding="utf-8")
    else:
        raise UnknownName("preset", preset, preset_names())
    raw = _yaml(text, preset) or {}
    if not isinstance(raw, dict):
        raise RequestError(f"{preset}: a benchmark is a mapping, got {type(raw).__name__}")
    parent = raw.pop("extends", None)
    if parent is None:
        return raw
    parent_path = path.parent / str(parent)
    beside = path.suffix and Path(str(parent)).suffix and parent_path.is_file()
    below = read(str(parent_path) if beside else str(parent), (*above, preset))
    # What a benchmark says of itself is not true of one that extends it.
    return merge({key: value for key, value in below.items() if key not in ("title", "description")}, raw)


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RequestError(f"{where}: not YAML: {' '.join(str(error).split())}") from None


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`: mappings are merged, everything else (lists too) is replaced.

    A mapping of another `kind` replaces, too: the settings of one kind of data mean nothing to another.
    """
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = value
        if (
            isinstance(old, Mapping)
            and isinstance(value, Mapping)
            and value.get("kind", old.get("kind")) == old.get("kind")
        ):
            merged[key] = merge(old, value)
    return merged


def override(raw: dict[str, Any], text: str, example: str, option: str = "--set") -> None:
    """Set what `A.B=VALUE` says in plain nested values; the value is YAML. RequestError names the option."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise RequestError(f"{option} {text!r}: expected KEY=VALUE, such as {option} {example}")
    _put(raw, path.split("."), _yaml(value, f"{option} {text!r}"), text)


def _put(raw: dict[str, Any], path: list[str], value: Any, text: str) -> None:
    here: Any = raw
    for key in path[:-1]:
        if isinstance(here, list) and key.isdigit() and int(key) < len(here):
            here = here[int(key)]
        elif isinstance(here, dict):
            here = here.setdefault(key, {})
        else:
            raise RequestError(f"--set {text!r}: nothing to set at {key!r}")
    if not isinstance(here, dict):
        raise RequestError(f"--set {text!r}: {path[-2]!r} has no keys")
    here[path[-1]] = value


def method_spec(spec: type[S], settings: Mapping[str, Any], where: str) -> S:
    """A method's own spec from plain settings; RequestError names what is wrong with them."""
    try:
        return spec(**settings)
    except ValidationError as error:
        raise explain(error, spec, where) from None
