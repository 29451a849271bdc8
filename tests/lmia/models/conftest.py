import pytest
from compare import outputs

from lmia.embedded.testing import random_model


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    """A model of another seed: what is compared with `folder` can come from the given model only."""
    return random_model(tmp_path_factory.mktemp("models") / "other", seed=2)


@pytest.fixture(scope="session")
def untouched(model):
    """What the model in `folder` computes."""
    return outputs(model)
