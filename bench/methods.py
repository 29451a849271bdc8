"""Versions against sources: a method whose code changed has to be bumped, or the change acknowledged.

`python -m bench.methods` lists what changed; `python -m bench.methods --acknowledge` records the sources as they are,
for changes that leave all results as they were (a rename, a speed-up with equal bits). A method's code is everything
in `lmia` that its module reaches by imports, wherever they stand in a file. Other methods are not reached: a registry
finds its methods by name, and what wraps another method names it and its version.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
RECORD = Path(__file__).with_name("methods.json")
MODEL = "lmia.models.load"
"""Where a model comes from: methods know a protocol, which does not import what fulfils it."""
# How a stage comes to a registered method's results, beside the method's own module.
ENTRANCES = {
    "pictures": (),
    "model": ("lmia.finetune.train", MODEL),
    "attack": ("lmia.attacks.scoring", "lmia.models.probe", "lmia.data.captions", MODEL),
}


class Method(NamedTuple):
    """What is compared.

    Attributes:
        version: the method's.
        source: digest of its code.
    """

    version: int
    source: str


def current(root: Path = ROOT) -> dict[str, Method]:
    """Version and source digest of every method by `kind/name`.

    Args:
        root: the folder with the packages whose source is read; the versions are always those of the running program.
    """
    from bench.artifacts.pictures import GeneratedSpec, MixSpec, TakeSpec
    from bench.artifacts.row import RowSpec
    from lmia.attacks import ATTACKS
    from lmia.data.marks import MARKS
    from lmia.data.sources import SOURCES
    from lmia.finetune.methods import METHODS
    from lmia.resolve import ExternalModel

    sources = _Sources(root)
    found: dict[str, tuple[int, list[str]]] = {
        # Methods that are no classes of a registry.
        "model/base": (ExternalModel.version, ["lmia.resolve"]),
        "pictures/generated": (GeneratedSpec.version, ["lmia.models.sample", "lmia.data.captions", MODEL]),
        "pictures/take": (TakeSpec.version, ["lmia.data.pictures"]),
        "pictures/mix": (MixSpec.version, ["lmia.data.pictures"]),
        "row/estimate": (RowSpec.version, ["bench.stages.row"]),
    }
    for kind, registries in {"pictures": (SOURCES, MARKS), "model": (METHODS,), "attack": (ATTACKS,)}.items():
        for registry in registries:
            for name in registry.names():
                method = registry.get(name)
                if not method.__module__.startswith("lmia."):
                    continue  # another package's, which answers for its own versions
                found[f"{kind}/{name}"] = method.version, [method.__module__, *ENTRANCES[kind]]
    return {name: Method(version, sources.digest(modules)) for name, (version, modules) in sorted(found.items())}


class _Sources:
    """The code of the packages below a folder, each file read once."""

    def __init__(self, root: Path):
        self.root = root
        self.module = cache(self._module)

    def digest(self, modules: Iterable[str]) -> str:
        """Digest of the code of modules and of all that they import from `lmia`."""
        total = hashlib.sha256()
        for name in sorted(self.closure(modules)):
            total.update(self.module(name)[0])
        return total.hexdigest()[:16]

    def closure(self, modules: Iterable[str]) -> set[str]:
        """The modules and all that they import from `lmia`, directly or not."""
        found: set[str] = set()
        waiting = list(modules)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting += self.module(name)[1]
        return found

    def _module(self, name: str) -> tuple[bytes, list[str]]:
        """Digest of a module's code without comments, docstrings and layout, and what it imports from `lmia`."""
        path = self._path(name)
        if path is None:
            raise FileNotFoundError(f"no module {name} in {self.root}")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                node.body = [line for line in node.body if not _says_nothing(line)]
        inside = [name for name in sorted(names) if name.startswith("lmia.") and self._path(name)]
        return hashlib.sha256(ast.dump(tree).encode()).digest(), inside

    def _path(self, name: str) -> Path | None:
        path = self.root.joinpath(*name.split("."))
        return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def _says_nothing(line: ast.stmt) -> bool:
    """A docstring, or a string after a constant that describes it."""
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


def changed(recorded: dict[str, Method], now: dict[str, Method]) -> list[str]:
    """What a person has to look at: methods with other code and the same version, new ones, vanished ones."""
    lines = []
    for name in sorted({*recorded, *now}):
        if name not in now:
            lines.append(f"{name}: is gone")
        elif name not in recorded:
            lines.append(f"{name}: is new")
        elif recorded[name] != now[name]:
            if recorded[name].version == now[name].version:
                lines.append(f"{name}: its code changed, its version {now[name].version} did not")
            else:
                lines.append(f"{name}: version {recorded[name].version} is now {now[name].version}")
    return lines


def recorded() -> dict[str, Method]:
    """The methods as they were last acknowledged."""
    if not RECORD.is_file():
        return {}
    return {name: Method(**method) for name, method in json.loads(RECORD.read_text(encoding="utf-8")).items()}


def main(arguments: list[str]) -> int:
    """Compare or acknowledge."""
    now = current()
    if "--acknowledge" in arguments:
        plain = {name: method._asdict() for name, method in now.items()}
        RECORD.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
        return 0
    lines = changed(recorded(), now)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
