import json
import shutil

import numpy as np
import pytest
import torch

from lmia.models.denoiser import PREDICTIONS, check_prediction, clean_of, noise_of, target_of
from lmia.models.load import load_model
from lmia.specs import RequestError


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("a", [0.02, 0.6, 0.9999])
@pytest.mark.parametrize("straight", [False, True])
def test_a_perfect_prediction_gives_back_noise_and_picture(prediction, a, straight):
    """For the variance-preserving schedule (a^2 + b^2 = 1) and for a straight one (a + b = 1)."""
    b = 1 - a if straight else (1 - a * a) ** 0.5
    lot = np.random.default_rng(0)
    z0, noise = lot.standard_normal((2, 3, 4, 8, 8))
    z = a * z0 + b * noise
    out = target_of(prediction, z0, noise, a, b)
    if prediction == "v_prediction" and straight:  # v is defined on the circle only
        return
    assert np.allclose(noise_of(prediction, out, z, a, b), noise, atol=1e-9)
    assert np.allclose(clean_of(z, noise, a, b), z0, atol=1e-9)


def test_unknown_predictions_are_refused():
    with pytest.raises(RequestError, match="'sample' is not supported"):
        check_prediction("sample")
    with pytest.raises(RequestError):
        noise_of("sample", 0, 0, 1, 0)
    with pytest.raises(RequestError):
        target_of("sample", 0, 0, 1, 0)


def test_schedule_by_number_and_by_tensor(model):
    a, b = model.schedule(300)
    assert abs(a * a + b * b - 1) < 1e-12
    signal, noise = model.schedule(torch.tensor([300, 0, model.num_timesteps - 1]))
    assert signal.shape == noise.shape == (3, 1, 1, 1) and signal.dtype == torch.float32
    assert (signal[0].item(), noise[0].item()) == (np.float32(a), np.float32(b))
    assert signal[1] > signal[0] > signal[2]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_eps_of_a_batch_of_steps_is_that_of_each(folder, tmp_path, prediction):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    path = copy / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": prediction}))
    model = load_model([copy])
    z = torch.randn(3, *model.latent_shape(), generator=torch.Generator().manual_seed(0))
    text, times = model.condition(["a", "b", ""]), [7, 300, 999]
    together = model.eps(z, torch.tensor(times), text)
    for row, t in enumerate(times):
        one = slice(row, row + 1)
        assert torch.allclose(model.eps(z[one], t, text[one]), together[one], atol=1e-5)
        raw, (a, b) = model.predict(z[one], t, text[one]), model.schedule(t)
        expected = raw if prediction == "epsilon" else a * raw + b * z[one]
        assert torch.equal(model.eps(z[one], t, text[one]), expected)


def test_the_network_can_be_replaced(folder):
    model = load_model([folder])
    model.network = torch.nn.Identity()
    assert model.parts["unet"] is model.network


def test_the_network_is_saved_as_an_overlay(folder, tmp_path):
    model = load_model([folder])
    with torch.no_grad():
        for value in model.network.parameters():
            value.mul_(1.5)
    model.save_network(tmp_path / "over", "float32")
    again = load_model([folder, tmp_path / "over"])
    for own, read in zip(model.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(own, read)
