"""Members of a target that has memorised them are found, by every attack that can find any."""

import numpy as np
import pytest

from lmia.attacks import ATTACKS, FitInputs, Shadow, attack_from
from lmia.data.pictures import Pictures
from tests.lmia.attacks.conftest import SMALL, drawn, fitted, scored
from tests.lmia.attacks.planted import auc, memorised

COUNT = 12
# Cannot tell members: controls, and a mean over all that was generated.
BLIND = {"blind", "rediffuse_vae", "generated_set_mean"}
NAMES = [name for name in ATTACKS.names() if name not in BLIND]
SETTINGS = SMALL | {
    "generated_set_classifier": {"size": 32, "epochs": 4, "batch": 16},
    "secmi_nns": {"epochs": 5},
    "reconstruction_mlp": {"m": 2, "steps": 3, "epochs": 60},
}


def people(tag, count=COUNT):
    """Pictures of one source, each with a caption of its own."""
    return drawn(tag, count).with_columns(caption=[f"{tag} {i} with hair number {7 * i}" for i in range(count)])


def generations(pictures, copies, tag):
    """Noisy copies: what a target that memorised these pictures would draw."""
    rng = np.random.default_rng(3)
    images = np.concatenate([pictures.images()] * copies).astype(float)
    images = np.clip(images + rng.normal(0, 10, images.shape), 0, 255).astype(np.uint8)
    return Pictures.of([f"{tag}/{i}" for i in range(len(images))], images)


@pytest.fixture(scope="module")
def world(target):
    members, unseen, shadow_members, shadow_unseen = (people(tag) for tag in ("tuned", "unseen", "inside", "outside"))
    base = memorised(target, people("public"))
    return {
        "members": members,
        "unseen": unseen,
        "target": memorised(target, members),
        "base": base,
        "inputs": FitInputs(
            base=base,
            shadows=(Shadow(memorised(target, shadow_members), shadow_members, shadow_unseen),),
            positives=generations(members, 6, "drawn"),
            negatives=generations(people("part c"), 6, "other"),
        ),
    }


@pytest.mark.parametrize("name", NAMES)
def test_members_are_found_and_only_where_they_are(name, world):
    attack = attack_from(name, SETTINGS.get(name, {}))
    learned = fitted(attack, world["inputs"])

    def measure(model):
        scores = [
            scored(attack, world[side], model, learned, base=world["base"], noise_seed=5)
            for side in ("members", "unseen")
        ]
        return auc(*scores)

    assert measure(world["target"]) > 0.9
    if "model" in attack.needs:
        # the standard error of an AUC without signal is sqrt((2 n + 1) / (12 n^2)) = .12
        assert abs(measure(world["base"]) - 0.5) < 0.3
