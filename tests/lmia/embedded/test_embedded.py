from collections import Counter

import numpy as np
import pytest

from lmia.data.sources import SOURCES
from lmia.embedded import EMBEDDED, embedded
from lmia.embedded.card import reconstruction, unet_gflop
from lmia.embedded.lists import read_lists
from lmia.models.load import load_model
from lmia.models.sample import SampleSpec, generate


@pytest.fixture(scope="module", params=EMBEDDED)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def tiny(name):
    return load_model([embedded(name)])


def redrawn(row):
    source = SOURCES.get("population")
    _, identity, number = row["id"].split("/")
    return source.pictures(source.Spec(), row["source"], "query", [identity], [int(number)])


def test_size_and_work_stay_within_their_limits(tiny):
    weights = [path for name in EMBEDDED for path in embedded(name).rglob("*.safetensors")]
    assert sum(path.stat().st_size for path in weights) < 16e6, "all of them together"
    assert unet_gflop(tiny) <= 0.2
    assert (tiny.size, tiny.vae_scale) == (64, 4)


def test_lists(name):
    lists = read_lists(embedded(name))
    for listed in ("domain_trained", "domain_unseen"):
        domains = Counter(row["domain"] for row in lists[listed])
        assert len(domains) >= 6 and set(domains.values()) == {40}
    assert len(lists["trained"]) >= 12_000
    row = lists["trained"][7]
    assert redrawn(row).captions == [row["caption"]]


def test_faces_survive_the_vae(name, tiny):
    lists = read_lists(embedded(name))
    pictures = [redrawn(row) for row in lists["unseen_person"][::250]]
    errors = [reconstruction(tiny, picture)["psnr_db"] for picture in pictures]
    assert np.mean(errors) > 24


def test_hair_follows_the_caption(tiny):
    spec = SampleSpec(guidance=4, steps=12, sampler="ddim")
    ids = [f"x/{n}" for n in range(6)]
    red = generate(tiny, ids, ["a wild headshot of a woman with long red hair"] * 6, spec).astype(int)
    grey = generate(tiny, ids, ["a wild headshot of a woman with long grey hair"] * 6, spec).astype(int)
    redness = [(sheet[:, 8:40, 16:48, 0] - sheet[:, 8:40, 16:48, 2]).mean() for sheet in (red, grey)]
    assert redness[0] > redness[1] + 10
