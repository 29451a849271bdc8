"""What fine-tuning lays over a model beside whole parts: each method reads what it wrote.

The methods lie above the models, so they are found by the name of their package, like every registry's: a worker that
only scores must not have to know who tuned the model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmia.registry import Registry

METHODS: Registry = Registry("fine-tuning method", "lmia.finetune.methods")


def lay_over(layer: Path, parts: Mapping[str, Any]) -> None:
    """Changes parts in place by each sub-folder of a layer that is named after a fine-tuning method.

    Raises:
        RequestError: what lies there does not fit the parts.
    """
    for name in METHODS.names():
        if (layer / name).is_dir():
            METHODS.get(name).load(layer / name, parts)
