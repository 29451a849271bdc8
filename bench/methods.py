"""Versions against sources: a method whose code changed has to be bumped, or the change acknowledged.

`python -m bench.methods` lists what changed; `python -m bench.methods --acknowledge` records the sources as they are,
for changes that leave all results as they were (a rename, a speed-up with equal bits).
"""

import ast
import hashlib
import inspect
import json
import sys
from pathlib import Path

RECORD = Path(__file__).with_name("methods.json")
# Methods that are not classes of a registry: (kind, name) -> version and the modules that decide their results.
PLAIN = {
    ("pictures", "generated"): (1, ["lmia.models.sample"]),
    ("pictures", "take"): (1, ["bench.stages.pictures"]),
    ("pictures", "mix"): (1, ["bench.stages.pictures"]),
    ("row", "estimate"): (
        None,
        ["bench.stages.row", "lmia.metrics.estimands", "lmia.metrics.low_fpr", "lmia.metrics.estimates"],
    ),
}
# What a registered method's results hang on beside its own module.
SHARED = {
    "attack": ["lmia.attacks.scoring", "lmia.models.probe"],
    "model": ["lmia.finetune.train"],
    "pictures": [],
}


def current() -> dict[str, dict[str, object]]:
    """Version and source digest of every method: `kind/name` -> {version, source}."""
    from bench.stages.row import RowSpec
    from lmia.attacks import ATTACKS
    from lmia.data.marks import MARKS
    from lmia.data.sources import SOURCES
    from lmia.finetune.methods import METHODS

    found = {}
    for kind, registries in {"pictures": (SOURCES, MARKS), "model": (METHODS,), "attack": (ATTACKS,)}.items():
        for registry in registries:
            for name in registry.names():
                method = registry.get(name)
                modules = [method.__module__, *SHARED[kind]]
                found[f"{kind}/{name}"] = {"version": method.version, "source": source_digest(modules)}
    for (kind, name), (version, modules) in PLAIN.items():
        found[f"{kind}/{name}"] = {"version": version or RowSpec.version(), "source": source_digest(modules)}
    return dict(sorted(found.items()))


def source_digest(modules: list[str]) -> str:
    """Digest of the code of modules without comments, docstrings and layout."""
    total = hashlib.sha256()
    for name in modules:
        module = __import__(name, fromlist=["_"])
        tree = ast.parse(inspect.getsource(module))
        for node in ast.walk(tree):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
        total.update(ast.dump(tree).encode())
    return total.hexdigest()[:16]


def changed(recorded: dict, now: dict) -> list[str]:
    """What a person has to look at: methods with other code and the same version, new ones, vanished ones."""
    lines = []
    for name in sorted({*recorded, *now}):
        if name not in now:
            lines.append(f"{name}: is gone")
        elif name not in recorded:
            lines.append(f"{name}: is new")
        elif recorded[name] != now[name]:
            if recorded[name]["version"] == now[name]["version"]:
                lines.append(f"{name}: its code changed, its version {now[name]['version']} did not")
            else:
                lines.append(f"{name}: version {recorded[name]['version']} is now {now[name]['version']}")
    return lines


def main(arguments: list[str]) -> int:
    """Compare or acknowledge."""
    now = current()
    if "--acknowledge" in arguments:
        RECORD.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
        return 0
    lines = changed(json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}, now)
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
