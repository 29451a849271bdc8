"""The science of lmia: data, models, fine-tuning, attacks and metrics. Never imports ray, mlflow or bench.

    import lmia
    from lmia.attacks.loss import Loss

    model = lmia.load("tuned/", base="base/")
    scores = lmia.score(model, "faces/", attacks=[Loss(t=200)])
    result = lmia.evaluate(scores, member=[...], by=["attack"])

Names are imported when they are first used, so that `import lmia` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmia.api import load, score
    from lmia.attacks import Attack
    from lmia.data.pictures import Pictures
    from lmia.finetune.methods import Method
    from lmia.metrics.estimates import Estimate
    from lmia.metrics.evaluation import Evaluation, evaluate
    from lmia.models.denoiser import Denoiser
    from lmia.models.probe import Probe
    from lmia.specs import RequestError

__version__ = "0.1.0"
__all__ = [
    "Attack",
    "Denoiser",
    "Estimate",
    "Evaluation",
    "Method",
    "Pictures",
    "Probe",
    "RequestError",
    "evaluate",
    "load",
    "score",
]

_HOMES = {
    "Attack": "lmia.attacks",
    "Denoiser": "lmia.models.denoiser",
    "Estimate": "lmia.metrics.estimates",
    "Evaluation": "lmia.metrics.evaluation",
    "Method": "lmia.finetune.methods",
    "Pictures": "lmia.data.pictures",
    "Probe": "lmia.models.probe",
    "RequestError": "lmia.specs",
    "evaluate": "lmia.metrics.evaluation",
    "load": "lmia.api",
    "score": "lmia.api",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
