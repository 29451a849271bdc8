"""What of a graph exists, what is missing and what can be made now. Depth comes from the graph itself."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bench.artifacts.artifact import Artifact, walk
from bench.artifacts.models import below
from bench.store import Entry, InputRef, Ref, SpecChanged, Store, inputs_digest


@dataclass
class Survey:
    """The state of a graph against one listing of the store.

    Attributes:
        done: manifests by address, of artifacts that are there and whose inputs are what they were made of.
        missing: what has to be made for the targets, inputs first.
        refs: of the missing artifacts whose inputs are all there: ready to be made.
    """

    done: dict[str, Entry] = field(default_factory=dict)
    missing: list[Artifact] = field(default_factory=list)
    refs: dict[str, Ref] = field(default_factory=dict)


def survey(targets: Iterable[Artifact], store: Store, also: Iterable[Artifact] = ()) -> Survey:
    """Compare the graph under `targets` with the store; `also` must exist too (parts found damaged).

    An artifact counts as there when its manifest was made from the content that its inputs have now. An input
    that somebody removed does not invalidate what was made of it; one that was remade with other bits does.

    Raises:
        SpecChanged: an artifact at the same address was made from another resolved spec, that is, a default
            changed without a version bump.
    """
    targets, index, result = list(targets), store.index(), Survey()
    outdated: set[str] = set()
    graph = list(walk([*targets, *also]))
    for artifact in graph:
        entries = index.get(artifact.address, [])
        known = {name: result.done.get(i.address) for name, i in artifact.inputs.items()}
        if entries and any(i.address in outdated for i in artifact.inputs.values()):
            outdated.add(artifact.address)
            continue
        whole = all(known.values())
        current = inputs_digest({name: entry.digest for name, entry in known.items() if entry}) if whole else None
        fitting = [e for e in entries if current is None or e.inputs == current]
        if entries and not fitting:
            outdated.add(artifact.address)
        elif fitting:
            spec = Ref(artifact.kind, artifact.address, artifact.method, artifact.version, artifact.resolved, {})
            if fitting[-1].spec != spec.spec_digest and not _grown(store.manifest(fitting[-1].key).spec, spec.spec):
                raise SpecChanged(
                    f"{artifact} in {store.uri} was made from another resolved spec than today's: a default changed "
                    f"without a version bump of {artifact.kind} method {artifact.method!r} (now {artifact.version})"
                )
            result.done[artifact.address] = fitting[-1]
    result.missing = _missing(targets, list(also), result.done, outdated)
    for artifact in result.missing:
        known = {name: result.done.get(i.address) for name, i in artifact.inputs.items()}
        needed = [one for i in artifact.inputs.values() for one in below(i)]
        if all(known.values()) and all(one.address in result.done for one in needed):
            result.refs[artifact.address] = ref_of(artifact, {n: e for n, e in known.items() if e})
    return result


def ref_of(artifact: Artifact, inputs: dict[str, Entry]) -> Ref:
    """The artifact as a worker needs it, given its inputs' manifests."""
    return Ref(
        kind=artifact.kind,
        address=artifact.address,
        method=artifact.method,
        version=artifact.version,
        spec=artifact.resolved,
        inputs={name: InputRef(entry.address, entry.digest, entry.key) for name, entry in inputs.items()},
        num_slices=artifact.num_slices,
    )


def _grown(old: Any, new: Any) -> bool:
    """Whether a resolved spec is the older one with further fields: at equal addresses these have their defaults."""
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() <= new.keys() and all(_grown(value, new[key]) for key, value in old.items())
    return old == new


def _missing(targets: list[Artifact], also: list[Artifact], done: dict, outdated: set[str]) -> list[Artifact]:
    """Targets that are not there and, through missing ones only, what they are made of.

    Below an artifact that is there, only what became outdated is looked for: it has to be remade before it is
    known whether what hangs on it is still valid.
    """
    wanted: set[str] = set()
    stack = [a for a in [*targets, *also] if a.address not in done]
    while stack:
        artifact = stack.pop()
        if artifact.address not in wanted:
            wanted.add(artifact.address)
            needed = [one for i in artifact.inputs.values() for one in (i, *below(i))]
            stack.extend(i for i in needed if i.address not in done)
    return [a for a in walk([*targets, *also]) if a.address in wanted]
