import numpy as np
import pytest

from lmia.data.pictures import Pictures
from lmia.embedded.testing import random_model
from lmia.models.load import load_model


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("models") / "random", seed=1)


@pytest.fixture(scope="session")
def model(folder):
    return load_model([folder])


@pytest.fixture(scope="session")
def pictures():
    draw = np.random.default_rng(0)
    blocks = draw.integers(0, 256, (7, 4, 4, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    captions = [
        f"a north headshot of a man with {word} hair"
        for word in ("red", "blond", "grey", "brown", "black", "long", "wet")
    ]
    return Pictures.of(
        [f"north/{n}/0" for n in range(7)], blocks, identity=[f"north-{n}" for n in range(7)], source=["north"] * 7,
        caption=captions,
    )  # fmt: skip
