import json
import shutil

import pytest
import torch
from PIL import Image

from lmia.embedded import pretrain as module
from lmia.embedded.architecture import learn_merges
from lmia.embedded.lists import read_lists
from lmia.embedded.pretrain import pretrain, snapshot
from lmia.embedded.recipe import PretrainSpec, list_pictures
from lmia.embedded.testing import RANDOM
from lmia.models.load import load_model
from lmia.specs import RequestError
from lmia.training import Training


def spec_of(**fields):
    settings = {
        "sources": {"wild": 4, "east": 2},
        "photos": 2,
        "unseen_people": 3,
        "domains": 3,
        "domain_photos": 2,
        "architecture": RANDOM,
        "vae_steps": 4,
        "unet_steps": 4,
        "unet_batch": 4,
    }
    return PretrainSpec(**{**settings, **fields})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("pretrain")
    reports = []
    figures = pretrain(spec_of(), root / "out", root / "work", reports.append)
    return root, figures


def test_the_folder_is_whole(made):
    root, figures = made
    out = root / "out"
    assert load_model([out]).size == 32
    card = (out / "MODEL_CARD.md").read_text()
    for word in ("GFLOP", "PSNR", "Membership figures", "trained vs unseen_photo", "domain_trained"):
        assert word in card
    assert Image.open(out / "samples.png").size == (12 * 32, 5 * 32)
    assert json.loads((out / "recipe.json").read_text()) == spec_of().resolved()
    assert not list(root.glob("*.writing"))
    assert {"unet_gflop", "megabytes", "reconstruction", "losses", "auc"} <= set(figures)


def test_lists_keep_people_and_photos_apart(made):
    lists = read_lists(made[0] / "out")
    counts = {name: len(rows) for name, rows in lists.items()}
    assert counts["trained"] == 12 and counts["domain_trained"] == counts["domain_unseen"] == 6
    ids = [row["id"] for rows in lists.values() for row in rows]
    assert len(ids) == len(set(ids))
    people = {name: {row["identity"] for row in rows} for name, rows in lists.items()}
    assert people["unseen_photo"] <= people["trained"]
    assert not people["unseen_person"] & people["trained"]
    assert people["domain_trained"] == people["domain_unseen"]
    assert not people["domain_trained"] & (people["trained"] | people["unseen_person"])
    assert all(row["domain"] in row["caption"] for row in lists["domain_trained"])
    with pytest.raises(RequestError, match=r"no lists\.parquet"):
        read_lists(made[0])


def test_latents_have_unit_spread(made):
    model = load_model([made[0] / "out"])
    listed = list_pictures(spec_of())
    z = model.encode(listed.pictures.take(listed.of("trained", "domain_trained")).images(32))
    assert abs(float(z.std()) - 1) < 0.02


def test_an_interrupted_training_ends_with_the_same_weights(made, tmp_path, monkeypatch):
    advance = Training._advance
    monkeypatch.setattr(module, "SAVE_S", 0.0)

    def weights(folder):
        model = load_model([folder])
        return {**model.parts["unet"].state_dict(), **model.parts["text_encoder"].state_dict()}

    for stop in (2, 4):  # in the VAE's training; then, 2 of its steps being left, in the U-Net's
        calls = []

        def stopping(self, calls=calls, stop=stop):
            if len(calls) == stop:
                raise KeyboardInterrupt
            calls.append(0)
            advance(self)

        monkeypatch.setattr(Training, "_advance", stopping)
        with pytest.raises(KeyboardInterrupt):
            pretrain(spec_of(), tmp_path / "out", tmp_path / "work")
    monkeypatch.setattr(Training, "_advance", advance)
    pretrain(spec_of(), tmp_path / "out", tmp_path / "work")
    one, other = weights(made[0] / "out"), weights(tmp_path / "out")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_damaged_progress_is_named_and_made_again(made, tmp_path, caplog):
    work = tmp_path / "work"
    shutil.copytree(made[0] / "work", work)
    names = ["recipe.json", "lists.parquet", "pictures.parquet", "tokenizer/vocab.json", "vae/progress.safetensors"]
    names += ["latents.safetensors", "unet/progress.safetensors"]
    for name in names:
        content = bytearray((work / name).read_bytes())
        content[len(content) // 2] ^= 4
        (work / name).write_bytes(content)
    pretrain(spec_of(), tmp_path / "out", work)
    for name in names:
        assert str(work / name.replace("/vocab.json", "")) in caplog.text
    same = {"unet", "vae", "text_encoder", "tokenizer", "lists.parquet"}
    files = [
        p for name in same for p in [tmp_path / "out" / name, *(tmp_path / "out" / name).rglob("*")] if p.is_file()
    ]
    assert len(files) > 8
    for file in files:
        assert file.read_bytes() == (made[0] / "out" / file.relative_to(tmp_path / "out")).read_bytes()


def test_a_snapshot_is_a_model(made, tmp_path):
    snapshot(spec_of(), tmp_path / "out", made[0] / "work")
    assert load_model([tmp_path / "out"]).size == 32
    with pytest.raises(RequestError, match="no progress"):
        snapshot(spec_of(), tmp_path / "none", tmp_path / "empty")


def test_progress_of_another_recipe_is_refused(made):
    with pytest.raises(RequestError, match="another recipe"):
        pretrain(spec_of(unet_steps=5), made[0] / "x", made[0] / "work")


def test_too_few_people_and_too_few_pictures(tmp_path):
    with pytest.raises(RequestError, match=r"sources\.east = 2: .* needs 5 people, the population has 3"):
        list_pictures(spec_of(population={"people": 3}))
    with pytest.raises(RequestError, match="unet_batch = 100"):
        pretrain(spec_of(unet_batch=100), tmp_path / "out", tmp_path / "work")


def test_merges_are_the_most_frequent_pairs():
    assert learn_merges({"aab": 2, "ab": 1}, 1) == [("a", "b</w>")]
    assert learn_merges({"aab": 2, "ab": 1}, 9) == [("a", "b</w>"), ("a", "ab</w>")]
    assert learn_merges({"ba": 1, "ab": 1}, 1) == [("a", "b</w>")]  # ties: the alphabetically first


def test_a_longer_training_takes_over_the_embedded_parts(tmp_path):
    from lmia.embedded import embedded
    from lmia.embedded.pretrain import taken_over

    parts = taken_over(PretrainSpec(start="tiny", seed=1), tmp_path / "tokenizer")
    shipped = load_model([embedded("tiny")])
    for part, own in zip(parts, (shipped.vae, shipped.unet, shipped.text_encoder), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(part.parameters(), own.parameters(), strict=True))
    assert all(p.requires_grad for part in parts[1:] for p in part.parameters())
    assert not any(p.requires_grad for p in parts.vae.parameters())
    assert (tmp_path / "tokenizer" / "vocab.json").is_file()
    with pytest.raises(RequestError, match="photos = 2: start = 'tiny' was made with 4"):
        taken_over(PretrainSpec(start="tiny", photos=2), tmp_path)
    with pytest.raises(RequestError, match="did you mean 'tiny'"):
        taken_over(PretrainSpec(start="tinny"), tmp_path)
