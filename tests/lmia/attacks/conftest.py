"""A random-weight target and base, pictures, and what every registered attack learns from them."""

import numpy as np
import pytest

from lmia.attacks import ATTACKS, Shadow
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
    "combined": {"attacks": [{"attack": "loss"}, {"attack": "pia"}, {"attack": "pian"}, {"attack": "secmi"}]},
}


def small(name):
    return ATTACKS.get(name).Spec.model_validate(SMALL.get(name, {}))


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
    return {
        "positives": drawn("generated", 8),
        "negatives": drawn("auxiliary", 8),
        "base": base,
        "shadow": [Shadow(target, drawn("in", 6), drawn("out", 6))],
    }


@pytest.fixture(scope="session")
def learned(inputs):
    """What an attack learns, fitted once per session."""
    kept = {}

    def of(name):
        if name not in kept:
            attack, spec = ATTACKS.get(name), small(name)
            kept[name] = attack.fit(spec, inputs) if attack.fits(spec) else None
        return kept[name]

    return of


@pytest.fixture(scope="session")
def scores(learned, base, query):
    """The scores of an attack on a given model, with a fresh Probe."""
    from lmia.models.probe import Probe

    def of(name, model, pictures=query, batch=16, chunk=None):
        from lmia.attacks.scoring import score_pass

        more = {} if chunk is None else {"chunk": chunk}
        entry = (name, small(name), learned(name))
        return score_pass([entry], pictures, Probe(model, 5, batch), base=Probe(base, 5, batch), **more)[name]

    return of
