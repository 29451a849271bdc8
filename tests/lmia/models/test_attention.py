import pytest

from lmia.models import attention
from lmia.models.attention import choose_attention, set_attention
from lmia.specs import RequestError


@pytest.mark.parametrize(
    ("asked", "old", "fault", "used"),
    [
        ("sdpa", True, None, "sdpa"),
        ("auto", False, None, "sdpa"),
        ("auto", True, None, "xformers"),
        ("auto", True, "ImportError: no extension", "sdpa"),
        ("xformers", False, None, "xformers"),
    ],
)
def test_choice_follows_the_device(monkeypatch, asked, old, fault, used):
    monkeypatch.setattr(attention, "_lacks_flash", lambda device: old)
    monkeypatch.setattr(attention, "_xformers_fault", lambda device: fault)
    assert choose_attention(asked, "cuda") == used


def test_the_reason_is_named(monkeypatch):
    monkeypatch.setattr(attention, "_xformers_fault", lambda device: "ImportError: no extension")
    with pytest.raises(RequestError, match=r"cuda:1.*ImportError: no extension"):
        choose_attention("xformers", "cuda:1")


def test_setting_really_sets_processors(model):
    set_attention(model.unet, "sdpa")
    assert {type(processor).__name__ for processor in model.unet.attn_processors.values()} == {"AttnProcessor2_0"}
