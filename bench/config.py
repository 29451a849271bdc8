"""Plain values: YAML of presets and files, `extends`, merging, `--set a.b=c`, and typed specs from them."""

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from lmia.data.sources._listing import read_text
from lmia.specs import RequestError, Spec, UnknownName, explain

S = TypeVar("S", bound=Spec)
OF_ITSELF = ("name", "title", "description")
MAX_DEPTH, MAX_VALUES = 40, 100_000
_NAMES = {list: "a list", bool: "true or false", int: "a number", float: "a number"}


def preset_names() -> list[str]:
    """The presets that come with lmia."""
    folder = resources.files("bench.presets")
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))


def read(preset: str) -> dict[str, Any]:
    """The plain values of a preset or YAML file over those that it extends.

    Raises:
        RequestError: no such preset or file, not YAML, nothing in it, or it extends itself.
    """
    chain: dict[str, dict[str, Any]] = {}
    asked_by = ""
    while True:
        path = Path(preset)
        if path.suffix in (".yaml", ".yml"):
            if not path.is_file():
                raise RequestError(f"{asked_by}no such benchmark file: {preset}")
            key, raw = str(path.resolve()), read_file(path)
            raw.setdefault("name", re.sub(r"[^A-Za-z0-9_.-]+", "-", path.stem))
        elif preset in preset_names():
            key, raw = preset, yaml_of((resources.files("bench.presets") / f"{preset}.yaml").read_text("utf-8"), preset)
        elif path.is_file():
            raise RequestError(f"{asked_by}{preset}: a benchmark file ends in .yaml")
        else:
            raise UnknownName("preset", preset, preset_names(), asked_by)
        if key in chain:
            raise RequestError(f"{preset}: extends itself: {' -> '.join([*chain, key])}")
        chain[key] = raw
        parent = raw.pop("extends", None)
        if parent is None:
            break
        if not isinstance(parent, str):
            raise RequestError(f"{preset}: extends = {parent!r}: expected a preset's name or a YAML file")
        beside = path.suffix and Path(parent).suffix and (path.parent / parent).is_file()
        asked_by = f"{preset}: extends: "
        preset = str(path.parent / parent) if beside else parent
    found: dict[str, Any] = {}
    for raw in reversed(chain.values()):
        # What a benchmark says of itself is not true of one that extends it.
        found = merge({name: value for name, value in found.items() if name not in OF_ITSELF}, raw)
    return found


def read_file(path: Path) -> dict[str, Any]:
    """The plain values of a YAML file; RequestError names the file, and the line where there is one."""
    try:
        text = read_text(path)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror})") from None
    raw = yaml_of(text, str(path))
    if not isinstance(raw, dict):
        told = (
            "nothing is in it" if raw is None else f"expected KEY: VALUE lines, got {_NAMES.get(type(raw), 'a text')}"
        )
        raise RequestError(f"{path}: {told}")
    if not raw:
        raise RequestError(f"{path}: nothing is in it")
    return raw


class _Loader(yaml.SafeLoader):
    """YAML's plain values, where what has two meanings or no end is a mistake instead of a guess."""

    def compose_document(self) -> yaml.Node:
        node: yaml.Node = super().compose_document()
        _measure(node, {}, ())
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            line, name = key.start_mark.line + 1, self.construct_object(key, deep=True)
            if not isinstance(name, str):
                written = f" (written {key.value!r})" if isinstance(key, yaml.ScalarNode) else ""
                raise _Mistake(f"line {line}: the key {name!r}{written} is no text; put it into quotes")
            if name in lines:
                raise _Mistake(f"line {line}: the key {name!r} stands in line {lines[name]} already; keep one")
            lines[name] = line
        return super().construct_mapping(node, deep=deep)


class _Mistake(ValueError):
    """What is wrong with a YAML text, and in which line."""


def _measure(node: yaml.Node, sizes: dict[int, int], above: tuple[int, ...]) -> int:
    """Number of values in a node with its aliases written out; a mistake where that is too much, or has no end."""
    if id(node) in above:
        raise _Mistake(f"line {node.start_mark.line + 1}: an anchor that holds itself")
    if id(node) not in sizes:
        inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        nodes = inner if isinstance(node, yaml.CollectionNode) else []
        if len(above) > MAX_DEPTH:
            raise _Mistake(f"line {node.start_mark.line + 1}: nested more than {MAX_DEPTH} deep")
        sizes[id(node)] = 1 + sum(_measure(part, sizes, (*above, id(node))) for part in nodes)
        if sizes[id(node)] > MAX_VALUES:
            raise _Mistake(f"line {node.start_mark.line + 1}: more than {MAX_VALUES:,d} values, aliases written out")
    return sizes[id(node)]


def yaml_of(text: str, where: str) -> Any:
    """The plain values of a YAML text.

    Raises:
        RequestError: it is none, a key stands twice or is no text, or it has no end; names `where` and the line.
    """
    try:
        return _unshared(yaml.load(text, _Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        tab = " (a tab: YAML is indented by spaces)" if "\\t" in str(error.problem) else ""
        raise RequestError(f"{where}: {line}not YAML: {error.problem or error.context}{tab}") from None
    except yaml.YAMLError as error:
        raise RequestError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise RequestError(f"{where}: nested more than {MAX_DEPTH} deep") from None
    except (ValueError, OverflowError) as error:  # ours, and numbers and dates that are none
        raise RequestError(f"{where}: {error}") from None


def _unshared(value: Any) -> Any:
    """A copy in which aliases are values of their own, so that changing one leaves the others alone."""
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


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
    where, keys = f"{option} {text!r}", path.split(".")
    if not all(keys) or len(keys) > MAX_DEPTH:
        raise RequestError(f"{where}: {path!r} is no key; expected something like {option} {example}")
    _put(raw, keys, yaml_of(value, where), where)


def _put(raw: dict[str, Any], path: list[str], value: Any, where: str) -> None:
    here: Any = raw
    for key in path[:-1]:
        if isinstance(here, list) and key.isdecimal() and int(key) < len(here):
            here = here[int(key)]
        elif isinstance(here, dict):
            here = here.setdefault(key, {})
        else:
            raise RequestError(f"{where}: nothing to set at {key!r}")
    if not isinstance(here, dict):
        raise RequestError(f"{where}: {path[-2]!r} has no keys")
    here[path[-1]] = value


def method_spec(spec: type[S], settings: Mapping[str, Any], where: str) -> S:
    """A method's own spec from plain settings; RequestError names what is wrong with them."""
    try:
        return spec(**settings)
    except ValidationError as error:
        raise explain(error, spec, where) from None
