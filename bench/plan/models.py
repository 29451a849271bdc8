"""Models that somebody else made, tried once before anything is made with them."""

from collections.abc import Callable, Iterable, Mapping

from bench.artifacts.artifact import Artifact, walk
from bench.artifacts.models import KIND, is_given
from bench.store import Store
from lmia.embedded import EMBEDDED
from lmia.resolve import RANDOM


def try_models(
    targets: Iterable[Artifact], store: Store, fields: Mapping[str, str], tell: Callable[[str], None]
) -> None:
    """A dry run of every given model under `targets` that the store does not have yet, bases first.

    What comes with lmia is not tried: its tests do that.

    Args:
        targets: what is going to be made.
        store: where models that were taken over lie.
        fields: the option that named a model, by its reference; all others are `base`.
        tell: hears cautions.

    Raises:
        RequestError: a model cannot be fetched, read, laid over its base, or does not compute.
    """
    given = [artifact for artifact in walk(targets) if artifact.kind == KIND and is_given(artifact)]
    outside = [artifact for artifact in given if artifact.spec.reference not in (*EMBEDDED, RANDOM)]
    if not outside:
        return
    from lmia.api import try_model

    there = store.index()
    for artifact in outside:
        if artifact.address not in there:
            base = artifact.inputs["base"].spec.reference if "base" in artifact.inputs else None
            reference = artifact.spec.reference
            for caution in try_model(reference, base, field=fields.get(reference, "base")):
                tell(f"caution: {caution}")
