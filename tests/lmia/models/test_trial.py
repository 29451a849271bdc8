"""A model is tried before any work: what would fail in every job, or score another model, is refused by name."""

import json
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import lmia
from lmia.api import try_model
from lmia.models.load import load_model
from lmia.models.schedulers import own_word
from lmia.models.trial import try_out
from lmia.specs import RequestError

WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}


@pytest.fixture
def copy(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "model")
    return tmp_path / "model"


def rewrite(file, change):
    weights = load_file(file)
    change(weights)
    save_file({name: value.contiguous().clone() for name, value in weights.items()}, file, metadata={"format": "pt"})


def configure(folder, part, name="config.json", **values):
    path = folder / part / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def scheduler(folder, **values):
    configure(folder, "scheduler", "scheduler_config.json", **values)


def test_the_embedded_models_pass_without_a_caution():
    assert [try_model(name) for name in ("tiny", "tiny_long")] == [[], []]


@pytest.mark.parametrize("part", WEIGHTS)
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_weight_is_made_up_left_out_or_not_finite(folder, tmp_path_factory, part, data):
    """Any weight, any of five faults: the message names the model's option and the part."""
    copy = tmp_path_factory.mktemp("faulty") / "model"
    shutil.copytree(folder, copy)
    file = copy / WEIGHTS[part]
    name = data.draw(st.sampled_from(sorted(load_file(file))))
    fault = data.draw(st.sampled_from(["missing", "extra", "shape", "nan", "truncated"]))
    if fault == "truncated":
        raw = file.read_bytes()
        file.write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])
    else:
        faults = {
            "missing": lambda w: w.pop(name),
            "extra": lambda w: w.update({f"more.{name}": w[name]}),
            "shape": lambda w: w.update({name: torch.cat([w[name], w[name]])}),
            "nan": lambda w: w[name].view(-1).__setitem__(-1, float("nan")),
        }
        rewrite(file, faults[fault])
    with pytest.raises(RequestError, match=f"^base = .*{part}"):
        try_model(str(copy), field="base")


@pytest.mark.parametrize(
    ("part", "text"),
    [(part, text) for part in ("unet", "vae", "text_encoder") for text in ("", "[]", "{", "[" * 100_000, "{}", "\xff")],
)
def test_a_configuration_that_is_none(copy, part, text):
    (copy / part / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RequestError, match=r"^model = "):
        try_model(str(copy))
    (copy / part / "config.json").unlink()
    with pytest.raises(RequestError, match=rf"^model = .*{part}.config\.json"):
        try_model(str(copy))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"in_channels": 9}, "9 "),
        ({"cross_attention_dim": 24}, "unet"),
        ({"sample_size": None}, "sample_size"),
        ({"class_embed_type": "timestep"}, "unet"),
        ({"down_block_types": ["NoSuchBlock", "DownBlock2D"]}, "unet"),
        ({"block_out_channels": "8"}, "unet"),
    ],
)
def test_a_unet_of_another_kind(copy, values, said):
    configure(copy, "unet", **values)
    with pytest.raises(RequestError, match=rf"^model = .*{said}"):
        try_model(str(copy))


def test_an_inpainting_model_is_called_one(copy):
    configure(copy, "unet", in_channels=9)
    rewrite(copy / WEIGHTS["unet"], lambda w: w.update({"conv_in.weight": torch.zeros(8, 9, 3, 3)}))
    with pytest.raises(RequestError, match=r"^model = .*9 .*an inpainting"):
        try_model(str(copy))


def test_a_git_lfs_pointer(copy):
    (copy / WEIGHTS["unet"]).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n")
    with pytest.raises(RequestError, match=r"^model = .*unet"):
        try_model(str(copy))


@pytest.mark.parametrize(
    "kind", ["DEISMultistepScheduler", "LCMScheduler", "TCDScheduler", "NoSuchScheduler", "UniPCMultistepScheduler"]
)
def test_any_scheduler_with_betas_is_read(copy, folder, kind):
    """Scoring needs the betas alone, so that the class must not matter."""
    scheduler(copy, _class_name=kind)
    one, two = load_model([copy]), load_model([folder])
    steps = torch.arange(1000)
    assert all(torch.equal(a, b) for a, b in zip(one.schedule(steps), two.schedule(steps), strict=True))
    assert one.prediction_type == two.prediction_type
    try_out(one)


@pytest.mark.parametrize("kind", ["PNDMScheduler", "DDIMScheduler", "LMSDiscreteScheduler", "NoSuchScheduler"])
def test_zero_terminal_snr_is_not_lost_with_a_class_that_does_not_know_it(copy, kind):
    scheduler(copy, _class_name=kind, rescale_betas_zero_snr=True, prediction_type="v_prediction")
    model = load_model([copy])
    assert model.schedule(999)[0] < 1e-6 < model.schedule(900)[0]
    assert model.prediction_type == "v_prediction"


@pytest.mark.parametrize(
    "values",
    [
        {"_class_name": "FlowMatchEulerDiscreteScheduler", "beta_schedule": None, "beta_start": None, "beta_end": None},
        {"beta_schedule": "no such"},
        {"beta_end": 3.0},
        {"prediction_type": "sample"},
        {"prediction_type": "colour"},
        {"num_train_timesteps": 0},
        {"num_train_timesteps": "many"},
    ],
)
def test_a_schedule_that_is_none_is_refused(copy, values):
    scheduler(copy, **values)
    with pytest.raises(RequestError, match=r"^model = "):
        try_model(str(copy))


def test_a_model_that_denies_what_it_predicts_is_cautioned(tmp_path):
    from lmia.embedded import embedded

    shutil.copytree(embedded("tiny"), tmp_path / "m")
    scheduler(tmp_path / "m", prediction_type="v_prediction")
    (caution,) = try_model(str(tmp_path / "m"))
    assert "says that it predicts v, and its output follows the noise" in caution


@pytest.mark.parametrize(
    ("keys", "metadata", "word"),
    [
        ({"v_pred"}, {}, {"prediction_type": "v_prediction"}),
        ({"v_pred", "ztsnr"}, {}, {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}),
        (set(), {"modelspec.prediction_type": "v"}, {"prediction_type": "v_prediction"}),
        (set(), {"modelspec.prediction_type": "epsilon"}, {"prediction_type": "epsilon"}),
        (set(), {"ss_v_parameterization": "True"}, {"prediction_type": "v_prediction"}),
        (set(), {}, {}),
    ],
)
def test_a_files_own_word(keys, metadata, word):
    assert own_word(keys, metadata) == word


def test_a_checkpoints_own_word_is_used(folder, tmp_path):
    """As A1111 and ComfyUI write it: a tensor of that name, whatever it holds."""
    import ldm

    plain, marked = tmp_path / "plain.safetensors", tmp_path / "marked.safetensors"
    ldm.write(plain, {**ldm.unet_keys(folder), **ldm.vae_keys(folder), **ldm.text_keys(folder)})
    save_file({**load_file(plain), "v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, marked)
    one, two = lmia.load(plain, base=folder, device="cpu"), lmia.load(marked, base=folder, device="cpu")
    assert (one.prediction_type, two.prediction_type) == ("epsilon", "v_prediction")
    assert two.schedule(999)[0] < 1e-6 < one.schedule(999)[0]
    assert torch.equal(one.unet.conv_in.weight, two.unet.conv_in.weight)


def test_a_base_that_cannot_be_fetched(monkeypatch):
    reference = "owner/name@" + "a" * 40
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda *_, **__: (_ for _ in ()).throw(OSError("no route"))
    )
    with pytest.raises(RequestError, match=r"^base = 'owner/name@a+': could not be fetched.*no route"):
        try_model(reference, field="base")


def test_a_hub_repository_that_is_no_whole_model(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(RequestError, match=r"^model = 'owner/name@b+'"):
        try_model("owner/name@" + "b" * 40)
    with pytest.raises(RequestError, match=r"^base = 'owner/name@b+'.*no unet, vae"):
        try_model("owner/name@" + "b" * 40, field="base")
