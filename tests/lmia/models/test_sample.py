import json
import shutil

import numpy as np
import pytest
import torch

from lmia.models.load import load_model
from lmia.models.sample import SampleSpec, count_evaluations, denoise, generate, initial_latents
from lmia.specs import RequestError

IDS = ["p/0", "p/1", "p/2"]
PROMPTS = ["a north headshot", "a profile picture", "a man with red hair"]


class Recorder:
    """Stands for the U-Net: answers with numbers that tell the prompts apart, and counts rows."""

    def __init__(self, unet):
        self.config, self.rows = unet.config, 0

    def __call__(self, z, t, text, return_dict=False):
        self.rows += len(z)
        return (z * 0.01 + text[:, :, 0].mean(dim=1).view(-1, 1, 1, 1),)


@pytest.fixture
def recorded(folder):
    model = load_model([folder])
    model.unet = Recorder(model.unet)
    return model


def one_step(model, guidance):
    text, blank = model.condition(["a man with red hair"]), model.condition([""])
    z = torch.from_numpy(initial_latents(["x"], 0, model.latent_shape()))
    spec = SampleSpec(guidance=guidance, steps=1, sampler="ddim")
    before = model.unet.rows
    out = denoise(model, z, text, blank, spec)
    return out, model.unet.rows - before


def test_guidance_is_linear_between_unconditional_and_conditional(recorded):
    (zero, rows_0), (one, rows_1) = one_step(recorded, 0), one_step(recorded, 1)
    (many, rows_7), (half, _) = one_step(recorded, 7.5), one_step(recorded, 0.5)
    assert (rows_0, rows_1, rows_7) == (1, 1, 2)
    assert (one - zero).abs().max() > 1e-3
    # a DDIM step is linear in the noise prediction
    assert torch.allclose(many, zero + 7.5 * (one - zero), atol=1e-4)
    assert torch.allclose(half, zero + 0.5 * (one - zero), atol=1e-4)


def test_guidance_zero_ignores_the_prompt_and_one_does_not(model):
    def draw(prompt, guidance):
        return generate(model, ["x"], [prompt], SampleSpec(guidance=guidance, steps=3, sampler="ddim"))

    assert np.array_equal(draw("a man with red hair", 0), draw("a profile picture", 0))
    spec = SampleSpec(guidance=1, steps=3, sampler="ddim", negative_prompt="a photo")
    assert np.array_equal(draw("a profile picture", 1), generate(model, ["x"], ["a profile picture"], spec))


@pytest.mark.parametrize("sampler", ["ddim", "pndm", "dpm", "model"])
@pytest.mark.parametrize("guidance", [0, 1, 4])
def test_evaluations_are_counted_exactly(recorded, sampler, guidance):
    spec = SampleSpec(guidance=guidance, steps=5, sampler=sampler)
    generate(recorded, ["x"], ["a man"], spec)
    assert recorded.unet.rows == count_evaluations(spec, recorded)
    if sampler != "model":
        assert count_evaluations(spec) == count_evaluations(spec, recorded)


def test_a_picture_does_not_depend_on_its_batch_mates(model):
    spec = SampleSpec(steps=4, batch=2)
    together = generate(model, IDS, PROMPTS, spec).astype(int)
    alone = np.concatenate([generate(model, [i], [p], spec) for i, p in zip(IDS, PROMPTS, strict=True)]).astype(int)
    assert together.shape == (3, 32, 32, 3)
    assert np.abs(together - alone).max() <= 1  # rounding differs with the batch, nothing else
    assert np.array_equal(generate(model, IDS, PROMPTS, spec), together)
    assert not np.array_equal(together[0], together[1])


def test_seed_and_id_decide_the_noise():
    shape = (4, 8, 8)
    a = initial_latents(IDS, 0, shape)
    assert np.array_equal(a[1], initial_latents(["p/1"], 0, shape)[0])
    assert not np.array_equal(a, initial_latents(IDS, 1, shape))
    assert abs(a.mean()) < 0.2 and abs(a.std() - 1) < 0.1


def test_scheduler_keeps_the_models_schedule(model):
    for sampler in ("ddim", "pndm", "dpm"):
        scheduler = model.sampler(sampler, 10)
        assert torch.equal(scheduler.alphas_cumprod, model.scheduler.alphas_cumprod)
        assert scheduler.timesteps.device.type == "cpu"


def test_requests_that_do_not_fit(model):
    with pytest.raises(RequestError, match="dtype = 'float16'"):
        generate(model, IDS, PROMPTS, SampleSpec(dtype="float16"))
    with pytest.raises(RequestError, match="size = 33"):
        generate(model, IDS, PROMPTS, SampleSpec(size=33))
    assert generate(model, [], [], SampleSpec()).shape == (0, 32, 32, 3)
    assert generate(model, ["x"], ["a"], SampleSpec(size=64, steps=1)).shape == (1, 64, 64, 3)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_diffusers_own_pipeline_draws_the_same_picture(folder, tmp_path, prediction):
    from diffusers import StableDiffusionPipeline

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    path = copy / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": prediction}))
    pipe = StableDiffusionPipeline.from_pretrained(copy, dtype=torch.float32, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    model = load_model([copy])
    for guidance in (1, 7.5):
        theirs = pipe(
            PROMPTS,
            num_inference_steps=6,
            guidance_scale=guidance,
            latents=torch.from_numpy(initial_latents(IDS, 3, model.latent_shape())),
            output_type="np",
        ).images
        ours = generate(model, IDS, PROMPTS, SampleSpec(guidance=guidance, steps=6, sampler="model", seed=3))
        assert np.abs(ours.astype(int) - np.round(theirs * 255).astype(int)).max() <= 1
