import pytest

from lmia.data import captions
from lmia.data.population import PopulationSpec, person, photo
from lmia.specs import RequestError, UnknownName

SPEC = PopulationSpec()


def test_captions_say_what_the_features_are():
    for index in range(200):
        one, shot = person(SPEC, "wild", index), photo(SPEC, "wild", index, 0)
        text = captions.caption("wild", one, shot)
        assert text.startswith("a wild headshot of a ")
        words = text.replace(",", "").split()
        assert (one.choice("gender") in words) and ({"man", "woman"} - {one.choice("gender")}).isdisjoint(words)
        assert ("glasses" in words) == (one.choice("glasses") != "none")
        assert ("bald" in words) == (one.choice("hair_style") == "bald")
        assert (one.choice("hair_colour") in words) == (one.choice("hair_style") != "bald")
        assert (one.choice("facial_hair") in words) == (one.choice("facial_hair") != "none")
        assert ("smiling" in words) == (shot.smile > 0.55)
        assert text == captions.caption("wild", one, shot)
        assert one.name in captions.named_caption("wild", one, shot)


def test_prompts_of_each_kind():
    assert captions.prompts("class", "north", [], 2) == ["a north headshot"] * 2
    assert captions.prompts("generic", "north", [], 1) == ["a profile picture"]
    assert captions.prompts("caption", "north", ["x", "y"], 3) == ["x", "y", "x"]
    with pytest.raises(RequestError, match="1 of the 2 pictures of 'north' have no caption"):
        captions.prompts("caption", "north", ["x", None], 3)
    with pytest.raises(UnknownName, match="did you mean 'generic'"):
        captions.prompts("genric", "north", [], 1)
