"""What every registered attack must do; a new one is covered the moment it is registered."""

import dataclasses
import hashlib
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest

from lmia.attacks import ATTACKS, Attack, FitRun, Need, ScoreInputs, attack_from
from lmia.models.probe import Probe
from tests.lmia.attacks.conftest import small

NAMES = ATTACKS.names()
# No evaluation of these depends on the noise schedule: one tells the model a timestep and nothing else, one is
# the VAE's round trip, the others never see the target.
SCHEDULE_FREE = {name for name in NAMES if "model" not in small(name).needs} | {
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
    code += "nfe_asked(ATTACKS.get(n)() for n in ATTACKS.names()); "
    code += "assert not {'torch', 'sklearn', 'timm', 'diffusers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_declares_itself(name):
    attack = ATTACKS.get(name)()
    text = sys.modules[attack.__module__].__doc__
    for heading in ("Paper:", "Equation:", "Access:", "Sign:", "Deviations:"):
        assert heading in text, f"{attack.__module__} does not say {heading}"
    assert isinstance(attack, Attack) and attack.name == name and "version" in vars(type(attack))
    own = {key: value for key, value in attack.identity().items() if key not in ("attack", "attacks")}
    assert own == {"kind": name, "version": attack.version}, "default settings are not said, but what they are of is"
    assert type(attack).model_validate(attack.resolved()) == attack
    assert all(field.description for field in type(attack).model_fields.values())
    assert attack.access in ("none", "text-to-image", "img2img", "eps", "gradient")
    assert attack.role in ("attack", "control")
    assert attack.needs <= set(get_args(Need))
    assert attack.paper and isinstance(attack.learns, bool) and isinstance(attack.nfe, int)
    assert (attack.nfe > 0) <= ("model" in attack.needs)


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
    tolerance = 1e-2 if small(name).access == "text-to-image" else TOLERANCE
    assert close(again[::-1], first, tolerance), (again[::-1], first)
    assert query.to_parquet() == before[0] and np.array_equal(query.images(), before[1])
    assert (digest(target), digest(base)) == before[2:4]
    assert torch.equal(torch.get_rng_state(), before[4]), "the global random state was touched"
    for tensor in (learned(name) or {}).values():
        assert isinstance(tensor, torch.Tensor)


@pytest.mark.parametrize("name", [name for name in NAMES if type(small(name)).fit is not Attack.fit])
def test_what_is_learned_is_the_same_twice_and_survives_safetensors(name, learned, inputs, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    attack = small(name)
    if not attack.learns:
        assert attack.fit(inputs, FitRun()) == {}
        return
    once, twice = learned(name), attack.fit(inputs, FitRun())
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
    assert sum(rows) == small(name).nfe * len(query)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_remembered_has_the_names_declared(name, learned, target, base, query):
    """The names of `evaluations` are those under which the Probe keeps the work: sharing is no luck."""
    attack, probe = small(name), Probe(target, query, base=base)
    attack.scorer(ScoreInputs(learned(name) or {}, base))(probe)
    on_base = {key[1] for key in attack.evaluations if key[0] == "base"}
    assert {key for key in attack.evaluations if key[0] != "base"} <= set(probe._memo)
    assert on_base <= (set(probe.base._memo) if on_base else set())


def wrapping(name):
    """The attacks that can hold this one, each with it inside, down to two levels."""
    inside = {"kind": name}
    if name in ("calibrated", "combined") or "model" not in small(name).needs:
        return []
    calibrated = {"kind": "calibrated", "attack": inside}
    return [attack_from("calibrated", calibrated), attack_from("combined", {"attacks": ["pia", inside, calibrated]})]


@pytest.mark.parametrize("name", NAMES)
def test_a_new_version_moves_the_identity_of_all_that_wraps_it(name, monkeypatch):
    method = ATTACKS.get(name)
    holders = [method(), *wrapping(name), *(m() for m in map(ATTACKS.get, NAMES) if name in names_inside(m()))]
    others = [m() for m in map(ATTACKS.get, NAMES) if name not in names_inside(m())]
    before = [[attack.identity() for attack in each] for each in (holders, others)]
    monkeypatch.setattr(method, "version", method.version + 1)
    after = [[attack.identity() for attack in each] for each in (holders, others)]
    assert all(a != b for a, b in zip(before[0], after[0], strict=True)) and before[1] == after[1]
    with pytest.raises(ValueError, match="version"):
        method.model_validate({"version": method.version - 1})


def names_inside(attack):
    return {attack.name}.union(*(names_inside(part) for part in attack.parts))


def test_equal_settings_of_different_attacks_are_different_requests():
    pia, pian = (attack_from("calibrated", {"attack": kind}) for kind in ("pia", "pian"))
    assert pia.identity() != pian.identity() and pia != pian


FAKE = '''
"""A fake attack: the mean latent.

Paper: none. Equation: mean z0. Access: eps. Sign: none. Deviations: none.
"""

import numpy as np
from pydantic import Field

from lmia.attacks import Attack
from lmia.models.probe import Probe


class MeanLatent(Attack, name="mean_latent"):
    """The mean latent, scaled."""

    version = 1
    paper = "none"

    scale: float = Field(2.0, gt=0, description="what the mean is multiplied by")

    def score(self, target: Probe) -> np.ndarray:
        """scale * mean z0."""
        return self.scale * target.z0().double().mean(dim=(1, 2, 3)).cpu().numpy()
'''


def test_adding_an_attack_is_one_file(tmp_path):
    """Registered, in the command line's list, an axis value, nested and scored; nothing else was touched."""
    (tmp_path / "mean_latent.py").write_text(FAKE)
    code = f"""
import lmia.attacks
lmia.attacks.__path__.append({str(tmp_path)!r})
from bench.cli import main
from bench.cells import Axes
from lmia.attacks import attack_from
from lmia.attacks.scoring import nfe_asked
assert Axes(attack="mean_latent").attack == "mean_latent"
wrapped = attack_from("calibrated", {{"attack": {{"kind": "mean_latent", "scale": 3}}}})
assert wrapped.identity()["attack"] == {{"kind": "mean_latent", "version": 1, "scale": 3.0}}
raise SystemExit(main(["attacks"]))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "mean_latent" in run.stdout


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


@pytest.mark.parametrize("name", [name for name in NAMES if "model" in small(name).needs])
def test_v_prediction(name, scores, target):
    """A model that predicts v where the target predicts eps is the same model: the same scores."""
    import torch

    abar = target.scheduler.alphas_cumprod.double()

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
    tolerance = 1e-2 if small(name).access == "text-to-image" else 2e-3
    assert close(scores(name, other), scores(name, target), tolerance)
