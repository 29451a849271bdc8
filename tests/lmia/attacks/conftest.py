"""A random-weight target and base, pictures, and what every registered attack learns from them."""

import numpy as np
import pytest

from lmia.attacks import FitInputs, FitRun, Shadow, attack_from
from lmia.attacks.scoring import score_pass
from lmia.data.pictures import Pictures

# Cheaper than the defaults, same code. An attack that is not named here is tested with its defaults.
SMALL = {
    "gsa1": {"timesteps": (100, 700)},
    "gsa2": {"timesteps": (100, 700)},
    "generated_set_classifier": {"size": 32, "epochs": 1},
    "secmi_nns": {"epochs": 1},
    "reconstruction": {"m": 2, "steps": 3},
    "reconstruction_gaussian": {"m": 2, "steps": 3},
    "reconstruction_mlp": {"m": 2, "steps": 3, "epochs": 2},
    "rediffuse": {"n": 2},
    "pfami": {"crops": 3},
    "combined": {"attacks": ["loss", "pia", {"kind": "pian"}, "secmi"]},
}


def small(name):
    return attack_from(name, SMALL.get(name, {}))


def fitted(attack, inputs):
    return attack.fit(inputs, FitRun()) if attack.learns else None


def scored(attack, pictures, model=None, learned=None, **how):
    return score_pass([(attack, learned)], pictures, model, **how).scores[0]


def drawn(tag, count, size=32):
    """Smooth random pictures, two per person, with captions."""
    rng = np.random.default_rng([ord(letter) for letter in tag])
    coarse = rng.uniform(0, 255, (count, 4, 4, 3))
    images = np.kron(coarse, np.ones((1, size // 4, size // 4, 1))) + rng.normal(0, 12, (count, size, size, 3))
    words = ["round glasses", "long red hair", "a short beard"]
    return Pictures.of(
        [f"{tag}/{i}" for i in range(count)],
        np.clip(images, 0, 255).astype(np.uint8),
        identity=[f"{tag}/person{i // 2}" for i in range(count)],
        caption=[f"a headshot of a woman with {words[i % 3]}" for i in range(count)],
    )


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory):
    from lmia.embedded.testing import random_model

    folder = tmp_path_factory.mktemp("models")
    return [random_model(folder / str(seed), seed) for seed in (0, 1)]


@pytest.fixture(scope="session")
def target(model_folders):
    from lmia.models.load import load_model

    return load_model([model_folders[0]])


@pytest.fixture(scope="session")
def base(model_folders):
    from lmia.models.load import load_model

    return load_model([model_folders[1]])


@pytest.fixture(scope="session")
def query():
    return drawn("query", 4)


@pytest.fixture(scope="session")
def inputs(target, base):
    return FitInputs(
        positives=drawn("generated", 8),
        negatives=drawn("auxiliary", 8),
        base=base,
        shadows=(Shadow(target, drawn("in", 6), drawn("out", 6)),),
    )


@pytest.fixture(scope="session")
def learned(inputs):
    """What an attack learns, fitted once per session."""
    kept = {}

    def of(name):
        if name not in kept:
            kept[name] = fitted(small(name), inputs)
        return kept[name]

    return of


@pytest.fixture(scope="session")
def scores(learned, base, query):
    """The scores of an attack on a given model."""

    def of(name, model, pictures=query, batch=16, chunk=64):
        how = {"base": base, "noise_seed": 5, "batch": batch, "chunk": chunk}
        return scored(small(name), pictures, model, learned(name), **how)

    return of
