"""The generated-set classifier's training and the blind control."""

import numpy as np
import pytest

from lmia.attacks import FitInputs, FitRun
from lmia.attacks.blind import Blind, crossfit, features
from lmia.attacks.encoders import ClipEncoder, TimmEncoder, hub_file, load_encoder
from lmia.attacks.generated_set_classifier import GeneratedSetClassifier
from lmia.attacks.networks import TrainedNetwork, seeded
from lmia.data.pictures import Pictures
from lmia.specs import RequestError
from tests.lmia.attacks.conftest import drawn, scored
from tests.lmia.attacks.planted import auc


def shifted(pictures, tag, by):
    images = np.clip(pictures.images().astype(int) + by, 0, 255).astype(np.uint8)
    return Pictures.of(
        [f"{tag}/{i}" for i in pictures.ids], images, identity=[f"{tag}/{i}" for i in pictures.identities]
    )


class Killed(Exception):
    pass


class Trained(TrainedNetwork):
    """A network that is no attack."""

    name = "trained"
    version = 1


def test_interrupted_training_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr("lmia.attacks.networks.SAVE_EVERY_S", 0.0)

    x = torch.tensor(drawn("x", 13).images()).permute(0, 3, 1, 2).float() / 255

    def network():
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, 2), torch.nn.BatchNorm2d(8), torch.nn.Flatten(), torch.nn.LazyLinear(2)
        )

    def train(partial, die_at=None, seed=7):
        made = seeded(0, network)
        made(x[:2])
        torch.manual_seed(0)
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        made[1].reset_running_stats()
        calls = []

        def inputs(rows):
            calls.append(rows)
            if len(calls) == die_at:
                raise Killed
            return x[torch.from_numpy(rows)]

        reports = []
        state = Trained(lr=1e-2, batch=4, epochs=3, seed=seed).train(
            made.to(memory_format=torch.channels_last),
            inputs,
            [str(i) for i in range(13)],
            [i % 2 for i in range(13)],
            FitRun(partial=partial, on_progress=reports.append),
        )
        return state, len(calls), reports

    whole, calls, reports = train(None)
    assert calls == 9, "13 records in batches of 4: the last one joins the third batch"
    assert [report["epoch"] for report in reports] == [1, 2, 3]
    with pytest.raises(Killed):
        train(tmp_path, die_at=6)
    rest, calls, later = train(tmp_path)
    assert calls == 4 and later == reports[1:], "steps 6 to 9, with the same losses"
    assert all(torch.equal(whole[name], rest[name]) for name in whole)
    _, calls, _ = train(tmp_path, seed=8)
    assert calls == 9, "progress of another attack is ignored"


def test_classifier_tells_two_styles_apart(tmp_path):
    import torch

    attack = GeneratedSetClassifier(size=32, epochs=3, batch=8)
    inputs = FitInputs(shifted(drawn("p", 16), "p", 50), shifted(drawn("n", 16), "n", -50))
    figures = []
    learned = attack.fit(inputs, FitRun(partial=tmp_path, on_progress=figures.append))
    assert figures[-1]["epoch"] == 3 and figures[-1]["train_loss"] < figures[0]["train_loss"]
    a, b = shifted(drawn("q", 10), "p", 50), shifted(drawn("r", 10), "n", -50)
    assert auc(scored(attack, a, learned=learned), scored(attack, b, learned=learned)) > 0.9
    other = GeneratedSetClassifier(size=32, epochs=3, batch=8, seed=1).fit(inputs, FitRun())
    assert not torch.equal(other["conv1.weight"], learned["conv1.weight"])


def test_bfloat16_training_and_the_small_stem():
    for attack in (
        GeneratedSetClassifier(size=16, epochs=1, dtype="bfloat16"),
        GeneratedSetClassifier(size=16, epochs=1, stem="small"),
    ):
        learned = attack.fit(FitInputs(drawn("p", 4), drawn("n", 4)), FitRun())
        assert np.isfinite(scored(attack, drawn("q", 2), learned=learned)).all()
    assert learned["conv1.weight"].shape == (64, 3, 3, 3)


def test_weights_that_are_not_there_are_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RequestError, match="not in the local cache"):
        hub_file("nobody/nothing", "model.safetensors")
    for encoder in (TimmEncoder(model="vit_small_patch16_224.dino"), ClipEncoder(model="nobody/clip")):
        with pytest.raises(RequestError, match="not in the local cache"):
            load_encoder(encoder, base=None, device="cpu")
    with pytest.raises(RequestError, match="Invalid pretrained tag"):
        load_encoder(TimmEncoder(model="resnet18.nonesuch"), base=None, device="cpu")
    attack = GeneratedSetClassifier(pretrained=True)
    assert "encoder" in attack.needs
    with pytest.raises(RequestError, match="not in the local cache"):
        attack.fit(FitInputs(drawn("p", 2), drawn("n", 2)), FitRun())


def test_timm_encoder_with_weights_that_are_there(monkeypatch, tmp_path):
    import timm
    from safetensors.torch import save_file

    network = timm.create_model("resnet10t", num_classes=1000)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    monkeypatch.setattr("lmia.attacks.encoders.hub_file", lambda *args: tmp_path / "model.safetensors")
    vectors = load_encoder(TimmEncoder(model="resnet10t.c3_in1k"), base=None, device="cpu")(drawn("q", 3).images())
    assert vectors.shape == (3, 512) and vectors.dtype == np.float64


def test_blind_sees_style_and_nothing_where_there_is_nothing():
    attack = Blind()
    positives, negatives = shifted(drawn("p", 40), "p", 30), drawn("n", 40)
    assert features(positives).shape == (40, 222)
    learned = attack.fit(FitInputs(positives, negatives), FitRun())
    a, b = shifted(drawn("q", 40), "p", 30), drawn("r", 40)
    scores = [scored(attack, side, learned=learned) for side in (a, b)]
    assert auc(*scores) > 0.7
    null = crossfit(attack, drawn("half a", 80), drawn("half b", 80))
    assert abs(auc(*null) - 0.5) < 0.2


def test_crossfit_keeps_a_person_together():
    """Twins in the pictures are no help: each person is scored by a model that saw none of theirs."""
    attack = Blind(c=1000)
    a, b = drawn("a", 16), drawn("b", 16)

    def twice(pictures):
        return Pictures.concat(
            [pictures, Pictures.of([f"{i}x" for i in pictures.ids], pictures.images(), identity=pictures.identities)]
        )

    scores = crossfit(attack, twice(a), twice(b), folds=4)
    assert np.array_equal(scores[0][:16], scores[0][16:]), "both photos of a person come from one model"
    with pytest.raises(RequestError, match="on both sides"):
        crossfit(attack, a, a)
    with pytest.raises(RequestError, match="at least 2 people"):
        crossfit(attack, a.take([0, 1]), b)
