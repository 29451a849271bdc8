"""What the plain settings of a benchmark mean to the registered methods that they are for."""

import pytest

from bench.benchmark import Benchmark
from lmia.data.population import PopulationSpec
from lmia.resolve import resolve_base
from lmia.specs import RequestError


def test_settings_of_one_fine_tuning_method_lie_over_those_of_all():
    benchmark = Benchmark(finetune={"lr": 1e-3, "batch_size": 8, "lora": {"rank": 2, "lr": 2e-3}})
    full, lora = benchmark.finetuning("full", seed=3), benchmark.finetuning("lora", seed=3)
    assert (full.lr, full.batch_size, full.seed) == (1e-3, 8, 3)
    assert (lora.lr, lora.batch_size, lora.seed, lora.rank) == (2e-3, 8, 3, 2)
    with pytest.raises(RequestError, match=r"mine: finetune\.lora = 3"):
        Benchmark(finetune={"lora": 3}).finetuning("lora", "mine")


def test_data_is_told_by_its_kind():
    kind, spec = Benchmark(data={"kind": "population", "size": 32}).data_source()
    assert kind == "population" and isinstance(spec, PopulationSpec) and spec.size == 32
    with pytest.raises(RequestError, match=r"data\.kind is missing \(known: folder"):
        Benchmark(data={"size": 32}).data_source()


def test_evidence_is_told_by_pictures_and_by_the_base_s_width(tmp_path):
    import json
    import shutil

    from lmia.embedded import embedded

    drawn, photos = Benchmark(), Benchmark(data={"kind": "folder", "root": "x"})
    copy = tmp_path / "copied"
    shutil.copytree(embedded("tiny"), copy)
    link = tmp_path / "link"
    link.symlink_to(copy)
    for base in ("tiny", "random", str(copy), str(link), str(embedded("tiny"))):
        assert drawn.evidence(base) == "synthetic"
        assert photos.evidence(base) == "real pictures, miniature base"
    config = copy / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"block_out_channels": [320, 640, 1280, 1280]}))
    resolve_base.cache_clear()
    assert photos.evidence(str(copy)) == "real" and drawn.evidence(str(copy)) == "synthetic"


def test_a_copied_base_still_knows_whom_it_was_trained_on(tmp_path):
    import shutil

    from lmia.embedded import embedded

    shutil.copytree(embedded("tiny"), tmp_path / "mine")
    known = resolve_base("tiny").known_identities("population")
    assert known and resolve_base(str(tmp_path / "mine")).known_identities("population") == known


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({"institutions": ["north", "north"]}, "sources.institutions = [north, north]: two different"),
        ({"wild": "north"}, "sources.wild = 'north': it is one of sources.institutions"),
    ],
)
def test_a_source_is_not_told_from_itself(sources, message):
    from bench.cells import validate

    with pytest.raises(RequestError) as caught:
        validate({"sources": sources}, "mine")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"attacks": {"loss": {"noise": 1}}},
            "mine: attacks.loss: unknown key at noise 'noise'; did you mean 'noises'",
        ),
        ({"attacks": {"los": {}}}, "did you mean 'loss'"),
        ({"marks": {"visible": {"opacitie": 1}}}, "mine: marks.visible: unknown key at opacitie"),
        ({"generate": {"step": 1}}, "mine: generate: unknown key at step 'step'; did you mean 'steps'"),
        ({"default": {"method": "full"}, "finetune": {"rank": 1}}, "mine: finetune: unknown key at rank"),
    ],
)
def test_mistakes_in_settings_name_the_method_and_the_key(settings, message):
    with pytest.raises(RequestError) as caught:
        Benchmark(**settings).check("mine")
    assert message in str(caught.value)
