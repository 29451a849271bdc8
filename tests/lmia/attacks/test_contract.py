"""What every registered attack must do; a new one is covered the moment it is registered."""

import dataclasses
import hashlib
import subprocess
import sys

import numpy as np
import pytest

from lmia.attacks import ATTACKS, NEEDS
from lmia.specs import Spec
from tests.lmia.attacks.conftest import small

NAMES = ATTACKS.names()
# No evaluation of these depends on the noise schedule: one tells the model a timestep and nothing else, one is
# the VAE's round trip, the others never see the target.
SCHEDULE_FREE = {name for name in NAMES if "model" not in ATTACKS.get(name).requires(small(name))} | {
    "sima",
    "rediffuse_vae",
}
TOLERANCE = 2e-4  # of the scores' largest modulus: float32 products are summed in another order in another batch


def close(a, b, tolerance=TOLERANCE):
    return np.abs(a - b).max() <= tolerance * max(np.abs(b).max(), 1e-12)


def digest(model):
    total = hashlib.sha256()
    for part in (model.unet, model.vae, model.text_encoder):
        for tensor in part.state_dict().values():
            total.update(tensor.numpy().tobytes())
    return total.hexdigest()


def test_planning_does_not_import_torch():
    code = "import sys; from lmia.attacks import ATTACKS; ATTACKS.names(); from lmia.attacks.scoring import nfe_asked; "
    code += "nfe_asked([(n, ATTACKS.get(n).Spec()) for n in ATTACKS.names()]); "
    code += "assert not {'torch', 'sklearn', 'timm', 'diffusers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_declares_itself(name):
    attack = ATTACKS.get(name)
    text = sys.modules[attack.__module__].__doc__
    for heading in ("Paper:", "Equation:", "Access:", "Sign:", "Deviations:"):
        assert heading in text, f"{attack.__module__} does not say {heading}"
    spec = attack.Spec()
    assert isinstance(spec, Spec) and spec.identity() == {}
    assert attack.Spec.model_validate(spec.resolved()) == spec
    assert all(field.description for field in attack.Spec.model_fields.values())
    assert attack.access in ("none", "text-to-image", "img2img", "eps", "gradient")
    assert attack.role in ("attack", "control")
    assert attack.requires(spec) <= attack.needs <= NEEDS
    assert attack.paper and isinstance(attack.learns, bool) and isinstance(attack.nfe(spec), int)
    assert (attack.nfe(spec) > 0) <= ("model" in attack.requires(spec))


@pytest.mark.parametrize("name", NAMES)
def test_scores(name, scores, learned, target, base, query):  # noqa: PLR0917
    """Right form, the same twice, whatever the batch and the order; nothing is changed by scoring."""
    import torch

    before = query.to_parquet(), query.images().copy(), digest(target), digest(base), torch.get_rng_state()
    first = scores(name, target)
    assert first.dtype == np.float64 and first.shape == (len(query),)
    assert np.isfinite(first).all()
    assert np.array_equal(scores(name, target), first)
    backwards = list(range(len(query)))[::-1]
    again = scores(name, target, query.take(backwards), batch=3, chunk=3)
    # A generated picture is rounded to 8 bits, where a last digit may turn into a grey level.
    tolerance = 1e-2 if ATTACKS.get(name).access == "text-to-image" else TOLERANCE
    assert close(again[::-1], first, tolerance), (again[::-1], first)
    assert query.to_parquet() == before[0] and np.array_equal(query.images(), before[1])
    assert (digest(target), digest(base)) == before[2:4]
    assert torch.equal(torch.get_rng_state(), before[4]), "the global random state was touched"
    for tensor in (learned(name) or {}).values():
        assert isinstance(tensor, torch.Tensor)


@pytest.mark.parametrize("name", [name for name in NAMES if ATTACKS.get(name).learns])
def test_what_is_learned_is_the_same_twice_and_survives_safetensors(name, learned, inputs, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    attack, spec = ATTACKS.get(name), small(name)
    if not attack.fits(spec):
        assert attack.fit(spec, inputs) == {}
        return
    once, twice = learned(name), attack.fit(spec, inputs)
    assert once.keys() == twice.keys()
    assert all(torch.equal(once[key], twice[key]) for key in once)
    save_file(once, tmp_path / "learned.safetensors")
    back = load_file(tmp_path / "learned.safetensors")
    assert all(torch.equal(once[key], back[key]) for key in once)


@pytest.mark.parametrize("name", NAMES)
def test_evaluations_are_those_declared(name, scores, target, base, query, learned):  # noqa: PLR0917
    """Rows through the U-Nets, counted by a hook, alone: the declared number."""
    rows = []
    learned(name)
    hooks = [
        model.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0]))) for model in (target, base)
    ]
    try:
        scores(name, target)
    finally:
        for hook in hooks:
            hook.remove()
    assert sum(rows) == ATTACKS.get(name).nfe(small(name)) * len(query)


@pytest.mark.parametrize("name", sorted(set(NAMES) - SCHEDULE_FREE))
def test_alphas_come_from_the_models_scheduler(name, scores, target, learned):
    """On a linear and on a scaled-linear schedule the target is shown different latents."""
    config = {**target.scheduler.config, "beta_schedule": "linear"}
    other = dataclasses.replace(target, scheduler=type(target.scheduler).from_config(config))
    learned(name)
    shown = []
    hook = target.unet.register_forward_pre_hook(lambda module, args: shown.append(args[0].double().abs().sum().item()))
    try:
        scores(name, target)
        half = len(shown)
        scores(name, other)
    finally:
        hook.remove()
    assert shown[:half] != shown[half:]


@pytest.mark.parametrize("name", [name for name in NAMES if "model" in ATTACKS.get(name).requires(small(name))])
def test_v_prediction(name, scores, target):
    """A model that predicts v where the target predicts eps is the same model: the same scores."""
    import torch

    abar = target.abar()

    class PredictsV(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = target.unet
            self.config = target.unet.config

        def forward(self, z, t, text, return_dict=False):
            eps = self.inner(z, t, text, return_dict=False)[0].double()
            power = abar[torch.as_tensor(t).reshape(-1).long()].view(-1, 1, 1, 1)
            return (((eps - (1 - power) ** 0.5 * z) / power**0.5).float(),)

    config = {**target.scheduler.config, "prediction_type": "v_prediction"}
    other = dataclasses.replace(target, unet=PredictsV(), scheduler=type(target.scheduler).from_config(config))
    # Trees have steps, and generated pictures are rounded to 8 bits: there a last digit may show.
    tolerance = 1e-2 if ATTACKS.get(name).access == "text-to-image" else 2e-3
    assert close(scores(name, other), scores(name, target), tolerance)
