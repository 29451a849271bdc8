"""What is written about pictures, and the prompts that ask for them.

The words are few and regular, so that a small text encoder can learn them; the class prompts follow Holme et al.
("a dtu headshot", and the generic "a profile picture").
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from lmia.specs import RequestError, UnknownName

if TYPE_CHECKING:
    from lmia.data.population import Person, Photo

PromptKind = Literal["class", "generic", "caption"]
_HAIR = {
    "short": "short {} hair",
    "spiky": "spiky {} hair",
    "curly": "curly {} hair",
    "long": "long {} hair",
    "bob": "a {} bob",
    "bun": "a {} bun",
    "ponytail": "a {} ponytail",
}
_FACIAL_HAIR = {"stubble": "stubble", "moustache": "a moustache", "goatee": "a goatee", "beard": "a beard"}
_SMILING = 0.55


def describe(person: "Person", photo: "Photo | None" = None) -> str:
    """A person in words, e.g. ``a smiling man with glasses and short brown hair``.

    Args:
        person: whose lasting features are named: gender, hair, glasses, facial hair.
        photo: adds what this photo shows: a clear smile.
    """
    smiling = "smiling " if photo is not None and photo.smile > _SMILING else ""
    style = person.choice("hair_style")
    bald = "bald " if style == "bald" else ""
    traits = []
    if person.choice("glasses") != "none":
        traits.append(f"{person.choice('glasses')} glasses")
    if not bald:
        traits.append(_HAIR[style].format(person.choice("hair_colour")))
    if person.choice("facial_hair") != "none":
        traits.append(_FACIAL_HAIR[person.choice("facial_hair")])
    with_ = f" with {_listed(traits)}" if traits else ""
    return f"a {smiling}{bald}{person.choice('gender')}{with_}"


def _listed(traits: Sequence[str]) -> str:
    return traits[0] if len(traits) == 1 else ", ".join(traits[:-1]) + " and " + traits[-1]


def caption(source: str, person: "Person", photo: "Photo | None" = None) -> str:
    """A picture's own caption, e.g. ``a north headshot of a woman with long red hair``."""
    return f"{class_prompt(source)} of {describe(person, photo)}"


def named_caption(source: str, person: "Person", photo: "Photo | None" = None) -> str:
    """A caption with the name, for pre-training: ``a wild photo of Mira Tolen, a woman with long red hair``."""
    return f"a {source} photo of {person.name}, {describe(person, photo)}"


def class_prompt(source: str) -> str:
    """The prompt for a whole source, e.g. ``a north headshot``."""
    return f"a {source} headshot"


def generic_prompt() -> str:
    """The prompt that names no source."""
    return "a profile picture"


def prompts(kind: str, source: str, captions: Sequence[str | None], count: int) -> list[str]:
    """`count` prompts of a kind.

    Args:
        kind: ``class`` and ``generic`` repeat one prompt, ``caption`` goes through the captions in order, again and
            again if there are too few.
        source: the source that a class prompt names.
        captions: the pictures' own captions (used by ``caption`` only).
        count: how many.

    Raises:
        RequestError: ``caption`` was asked for and a picture has none.
    """
    if kind == "class":
        return [class_prompt(source)] * count
    if kind == "generic":
        return [generic_prompt()] * count
    if kind != "caption":
        raise UnknownName("prompt", kind, ("class", "generic", "caption"))
    if not captions or any(not text for text in captions):
        missing = sum(not text for text in captions)
        raise RequestError(
            f"prompt = 'caption': {missing} of the {len(captions)} pictures of {source!r} have no caption"
        )
    return [str(captions[at % len(captions)]) for at in range(count)]
