"""A population of synthetic people: who they are and how each photo of them was taken.

Everything follows from (population seed, source, index, photo number). A `Person` has a name and features that stay
the same in every photo; a `Photo` has what changes from one to the next. The four sources share one distribution of
people and differ in photographic style only: `wild` and `east` are what the embedded base model is pre-trained on,
`north` and `south` are two institutions whose styles overlap, so that the source of a single photo can be guessed
well but not perfectly. `lmia.data.portrait` draws the pictures.
"""

import functools
import re
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from lmia.seeds import rng, seed_of
from lmia.specs import RequestError, Spec, UnknownName


class PopulationSpec(Spec):
    """Which synthetic people there are and how large their pictures are."""

    seed: int = Field(0, ge=0, description="seed of the whole population")
    size: int = Field(64, ge=16, le=1024, description="side of a picture in pixels")
    people: int = Field(4000, ge=1, le=100_000, description="people in each source")
    photos: int = Field(100, ge=1, le=100_000, description="photos of each person")


# ---------------------------------------------------------------------------------------------------------------
# Features. A measure is stored as a level 0..1000, so that distances between people are exact integers on every
# machine; its weight says how visible its whole range is in a small picture, in the same unit as the choices'.

MEASURES: dict[str, tuple[float, float, int]] = {
    # name: (value at level 0, value at level 1000, weight)
    "face_width": (0.64, 0.88, 900),
    "jaw": (0.0, 1.0, 400),
    "chin_taper": (0.02, 0.26, 400),
    "skin": (0.0, 1.0, 2600),
    "undertone": (-1.0, 1.0, 300),
    "hair_shade": (-1.0, 1.0, 400),
    "hair_volume": (0.0, 1.0, 500),
    "hairline": (0.40, 0.72, 600),
    "eye_spacing": (0.29, 0.42, 500),
    "eye_size": (0.105, 0.165, 500),
    "eye_height": (-0.12, 0.06, 400),
    "eye_tilt": (-0.16, 0.20, 200),
    "brow_weight": (0.022, 0.062, 500),
    "brow_tilt": (-0.2, 0.13, 300),
    "nose_length": (0.26, 0.44, 400),
    "nose_width": (0.08, 0.17, 400),
    "mouth_width": (0.19, 0.36, 500),
    "lip_fullness": (0.035, 0.085, 400),
    "lip_colour": (0.0, 1.0, 300),
    "ear_size": (0.12, 0.2, 200),
    "mole_x": (-0.45, 0.45, 0),
    "mole_y": (0.15, 0.7, 0),
}
CHOICES: dict[str, tuple[tuple[str, ...], int]] = {
    # name: (options, weight)
    "gender": (("man", "woman"), 300),
    "hair_style": (("bald", "short", "spiky", "curly", "long", "bob", "bun", "ponytail"), 2000),
    "hair_colour": (("black", "brown", "blond", "red", "grey"), 1600),
    "eye_colour": (("brown", "blue", "green", "grey"), 400),
    "glasses": (("none", "round", "square"), 1300),
    "frame": (("black", "brown", "red", "blue"), 0),
    "facial_hair": (("none", "stubble", "moustache", "goatee", "beard"), 1300),
    "freckles": (("no", "yes"), 400),
    "mole": (("no", "yes"), 400),
    "earrings": (("no", "yes"), 200),
}
TWIN_DISTANCE = 2500  # people of one source are at least this far apart: e.g. glasses, another hair colour and face

_MAN_HAIR = (0.14, 0.36, 0.14, 0.16, 0.08, 0.03, 0.04, 0.05)
_WOMAN_HAIR = (0.01, 0.08, 0.03, 0.18, 0.26, 0.18, 0.13, 0.13)


@dataclass(frozen=True)
class Person:
    """One synthetic person: the features that are the same in all photos."""

    source: str
    index: int
    name: str
    choices: tuple[str, ...]
    levels: tuple[int, ...]

    @property
    def identity(self) -> str:
        """The identity's name in tables, e.g. ``north-0042``."""
        return f"{self.source}-{self.index:04d}"

    def choice(self, name: str) -> str:
        """The option of a choice, e.g. ``choice("hair_style") == "long"``."""
        return self.choices[_CHOICE_AT[name]]

    def measure(self, name: str) -> float:
        """The value of a measure in face units (the head reaches from -1, top, to 1, chin)."""
        low, high, _ = MEASURES[name]
        return low + (high - low) * self.levels[_MEASURE_AT[name]] / 1000


_CHOICE_AT = {name: at for at, name in enumerate(CHOICES)}
_MEASURE_AT = {name: at for at, name in enumerate(MEASURES)}


def feature_vector(person: Person) -> np.ndarray:
    """Features as integers whose L1 distance is the distance between people.

    Returns:
        int64 [D]: weighted measures, then choices one-hot at half their weight (two differing options make it whole).
    """
    measures = [level * weight // 1000 for level, (_, _, weight) in zip(person.levels, MEASURES.values(), strict=True)]
    hot = [
        (option == chosen) * weight // 2
        for chosen, (options, weight) in zip(_visible(person), CHOICES.values(), strict=True)
        for option in options
    ]
    return np.array(measures + hot, dtype=np.int64)


def _visible(person: Person) -> tuple[str, ...]:
    """The choices with what cannot be seen made equal: a bald person's hair colour shows only in a beard."""
    choices = list(person.choices)
    if person.choice("hair_style") == "bald" and person.choice("facial_hair") == "none":
        choices[_CHOICE_AT["hair_colour"]] = "black"
    return tuple(choices)


def distance(one: Person, other: Person) -> int:
    """How different two people look; at least `TWIN_DISTANCE` for any two people of one source."""
    return int(np.abs(feature_vector(one) - feature_vector(other)).sum())


def _draw_person(seed: int, source: str, index: int, attempt: int) -> Person:
    draw = rng("person", seed, source, index, attempt)
    levels = dict(zip(MEASURES, (int(level) for level in draw.integers(0, 1001, len(MEASURES))), strict=True))
    pick = {name: options[draw.integers(len(options))] for name, (options, _) in CHOICES.items()}
    man = pick["gender"] == "man"
    pick["hair_style"] = str(draw.choice(CHOICES["hair_style"][0], p=_MAN_HAIR if man else _WOMAN_HAIR))
    pick["hair_colour"] = str(draw.choice(CHOICES["hair_colour"][0], p=(0.26, 0.28, 0.18, 0.14, 0.14)))
    pick["glasses"] = str(draw.choice(CHOICES["glasses"][0], p=(0.6, 0.2, 0.2)))
    beard = (0.42, 0.12, 0.14, 0.12, 0.2) if man else (1, 0, 0, 0, 0)
    pick["facial_hair"] = str(draw.choice(CHOICES["facial_hair"][0], p=beard))
    pick["freckles"] = "yes" if draw.random() < 0.16 and levels["skin"] < 550 else "no"
    pick["mole"] = "yes" if draw.random() < 0.25 else "no"
    pick["earrings"] = "yes" if draw.random() < (0.06 if man else 0.45) else "no"
    if not man:  # narrower jaws and fuller lips on average; the ranges overlap
        levels["jaw"] = levels["jaw"] * 6 // 10
        levels["lip_fullness"] = 300 + levels["lip_fullness"] * 7 // 10
        levels["brow_weight"] = levels["brow_weight"] * 7 // 10
    return Person(source, index, _name(seed, source, index), tuple(pick.values()), tuple(levels.values()))


# ---------------------------------------------------------------------------------------------------------------
# Names: number n of the population gets the n-th pair of words in a shuffled order of all pairs, so that no two
# people of any source share a name.

_HEADS = ("B", "D", "F", "H", "J", "K", "L", "M", "N", "R", "S", "T", "V", "Z")
_TAILS = ("ra", "lo", "mi", "na", "ren", "sa", "vi", "do", "ka", "lin")
_STEMS = ("Bar", "Cor", "Dal", "Fen", "Gar", "Hol", "Kes", "Lan", "Mor", "Nor", "Pel", "Quin", "Ros", "Sten", "Tol",
          "Ulm", "Var", "Wen", "Yor")  # fmt: skip
_ENDS = ("den", "lt", "mer", "nd", "ner", "rk", "ster", "vik", "wood", "x")
_FIRST = [a + b + c for a in _HEADS for b in ("a", "e", "i", "o", "u", "ai") for c in _TAILS]
_LAST = [a + b + c for a in _STEMS for b in ("a", "e", "i", "o", "u") for c in _ENDS]


def _name(seed: int, source: str, index: int) -> str:
    count = len(_FIRST) * len(_LAST)
    step = seed_of("names", seed) % count
    while np.gcd(step, count) != 1:
        step += 1
    number = (index * len(STYLES) + sorted(STYLES).index(source)) * step % count
    return f"{_FIRST[number % len(_FIRST)]} {_LAST[number // len(_FIRST)]}"


# ---------------------------------------------------------------------------------------------------------------
# People by index, without near-twins.


class _People:
    """The people of one source so far, grown on demand in index order: that order decides who has to redraw."""

    def __init__(self, seed: int, source: str):
        self.seed, self.source = seed, source
        self.people: list[Person] = []
        self._vectors = np.zeros((0, len(feature_vector(_draw_person(seed, source, 0, 0)))), np.int32)

    def upto(self, index: int) -> list[Person]:
        if index >= len(self._vectors):
            room = np.zeros((max(2 * len(self._vectors), index + 1, 64), self._vectors.shape[1]), np.int32)
            room[: len(self._vectors)] = self._vectors
            self._vectors = room
        while len(self.people) <= index:
            at = len(self.people)
            for attempt in range(1000):
                person = _draw_person(self.seed, self.source, at, attempt)
                vector = feature_vector(person).astype(np.int32)
                if at == 0 or np.abs(self._vectors[:at] - vector).sum(axis=1).min() >= TWIN_DISTANCE:
                    break
            else:
                raise RequestError(f"{self.source}: no room for person {at} that is not a near-twin of another")
            self.people.append(person)
            self._vectors[at] = vector
        return self.people


@functools.cache
def _people(seed: int, source: str) -> _People:
    return _People(seed, source)


def person(spec: PopulationSpec, source: str, index: int) -> Person:
    """Person number `index` of a source (any index, also beyond ``spec.people``)."""
    if source not in STYLES:
        raise UnknownName("source of the population", source, STYLES)
    return _people(spec.seed, source).upto(index)[index]


def parse_identity(source: str, identity: str) -> int:
    """The index in an identity such as ``north-0042``."""
    found = re.fullmatch(rf"{re.escape(source)}-(\d{{4,}})", identity)
    if not found:
        raise RequestError(f"identity {identity!r} is not one of source {source!r} (they read '{source}-0042')")
    return int(found[1])


# ---------------------------------------------------------------------------------------------------------------
# Photos.

COLLARS = ("tee", "vneck", "shirt", "suit", "sweater")
FABRICS: dict[str, tuple[float, float, float]] = {
    "navy": (0.13, 0.18, 0.33), "grey": (0.42, 0.44, 0.47), "white": (0.9, 0.9, 0.9), "black": (0.12, 0.12, 0.13),
    "blue": (0.25, 0.42, 0.68), "teal": (0.15, 0.44, 0.46), "green": (0.25, 0.42, 0.25), "brown": (0.42, 0.3, 0.2),
    "burgundy": (0.45, 0.13, 0.18), "mustard": (0.78, 0.6, 0.2), "pink": (0.84, 0.56, 0.6), "purple": (0.4, 0.28, 0.5),
}  # fmt: skip


@dataclass(frozen=True)
class Style:
    """How the photographers of a source work: mean and standard deviation of what varies between photos.

    Colours of backgrounds are given as lightness, warmth (blue to orange) and greenness (magenta to green).
    """

    lightness: tuple[float, float]
    warmth: tuple[float, float]
    greenness: tuple[float, float]
    gradient: tuple[float, float]  # brighter towards the top (positive) or the bottom
    vignette: tuple[float, float]
    clutter: float  # strength of shapes behind the person
    light_x: tuple[float, float]  # where the light comes from: -1 left, 1 right
    light_y: tuple[float, float]  # -1 above, 1 below
    contrast: tuple[float, float]
    exposure: tuple[float, float]
    balance: tuple[float, float]  # white balance, blue to orange
    scale: tuple[float, float]  # half the head's height in half pictures
    offset_x: tuple[float, float]
    offset_y: tuple[float, float]
    tilt: float  # spread of yaw, pitch and roll, relative
    noise: tuple[float, float]
    blur: tuple[float, float]
    collars: tuple[float, ...]  # odds, in the order of COLLARS
    fabrics: tuple[float, ...]  # odds, in the order of FABRICS


STYLES: dict[str, Style] = {
    "wild": Style(
        lightness=(0.52, 0.2), warmth=(0.0, 0.9), greenness=(0.0, 0.7), gradient=(0.0, 0.5), vignette=(0.15, 0.15),
        clutter=1.0, light_x=(0.0, 0.6), light_y=(-0.4, 0.35), contrast=(0.34, 0.12), exposure=(1.0, 0.09),
        balance=(0.0, 0.5), scale=(0.6, 0.05), offset_x=(0.0, 0.05), offset_y=(0.0, 0.05), tilt=1.2,
        noise=(0.018, 0.01), blur=(0.35, 0.3), collars=(3, 2, 2, 1, 2), fabrics=(1,) * 12,
    ),
    "east": Style(
        lightness=(0.38, 0.12), warmth=(0.6, 0.5), greenness=(0.1, 0.4), gradient=(-0.3, 0.3), vignette=(0.3, 0.15),
        clutter=0.5, light_x=(0.1, 0.5), light_y=(-0.5, 0.3), contrast=(0.42, 0.1), exposure=(0.97, 0.07),
        balance=(0.35, 0.35), scale=(0.61, 0.04), offset_x=(0.0, 0.04), offset_y=(0.02, 0.04), tilt=1.0,
        noise=(0.014, 0.008), blur=(0.3, 0.25), collars=(3, 1, 3, 1, 3), fabrics=(1, 1, 1, 2, 1, 1, 2, 2, 2, 2, 1, 1),
    ),
    "north": Style(
        lightness=(0.66, 0.1), warmth=(-0.36, 0.44), greenness=(0.05, 0.25), gradient=(0.15, 0.25),
        vignette=(0.16, 0.1), clutter=0.0, light_x=(-0.3, 0.42), light_y=(-0.45, 0.25), contrast=(0.32, 0.08),
        exposure=(1.02, 0.06), balance=(-0.1, 0.3), scale=(0.585, 0.035), offset_x=(0.0, 0.035),
        offset_y=(0.0, 0.035), tilt=0.9, noise=(0.01, 0.005), blur=(0.25, 0.2),
        collars=(2, 1, 4, 3, 2), fabrics=(4, 3, 3, 2, 4, 2, 1, 1, 1, 1, 1, 1),
    ),
    "south": Style(
        lightness=(0.6, 0.1), warmth=(0.06, 0.44), greenness=(-0.02, 0.25), gradient=(-0.02, 0.25),
        vignette=(0.2, 0.1), clutter=0.0, light_x=(0.2, 0.42), light_y=(-0.4, 0.25), contrast=(0.36, 0.08),
        exposure=(1.0, 0.06), balance=(0.08, 0.3), scale=(0.61, 0.035), offset_x=(0.0, 0.035),
        offset_y=(0.01, 0.035), tilt=0.9, noise=(0.013, 0.005), blur=(0.3, 0.2),
        collars=(3, 2, 3, 2, 3), fabrics=(2, 2, 3, 3, 2, 1, 2, 2, 2, 1, 1, 1),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Photo:
    """What one photo has of its own; colours in 0..1, lengths in half pictures or face units, angles in radians."""

    yaw: float
    pitch: float
    roll: float
    scale: float
    offset_x: float
    offset_y: float
    smile: float  # -1 sad, 1 broad
    mouth_open: float  # 0..1
    brow_raise: float
    lids: float  # how far the eyes are open: about 0.75..1.1
    gaze: float
    hair_sway: float
    light_x: float
    light_y: float
    contrast: float
    exposure: float
    balance: float
    background: tuple[float, float, float]
    gradient: float
    vignette: float
    clutter: tuple[tuple[float, ...], ...]  # shapes: x, y, rx, ry, r, g, b
    collar: str
    cloth: tuple[float, float, float]
    cloth_2: tuple[float, float, float]
    noise: float
    blur: float
    noise_seed: int


def photo(spec: PopulationSpec, source: str, index: int, number: int) -> Photo:
    """How photo `number` of person `index` was taken: drawn from the source's style, independent of the person."""
    if source not in STYLES:
        raise UnknownName("source of the population", source, STYLES)
    style = STYLES[source]
    draw = rng("photo", spec.seed, source, index, number)

    def normal(mean_sd: tuple[float, float], low: float = -np.inf, high: float = np.inf) -> float:
        mean, sd = mean_sd
        return float(np.clip(mean + sd * np.clip(draw.standard_normal(), -2.2, 2.2), low, high))

    def colour(lightness: float, warmth: float, greenness: float) -> tuple[float, float, float]:
        return (
            lightness + 0.13 * warmth - 0.04 * greenness,
            lightness + 0.02 * warmth + 0.08 * greenness,
            lightness - 0.14 * warmth - 0.04 * greenness,
        )

    def cloth() -> tuple[float, float, float]:
        odds = np.array(style.fabrics, dtype=float)
        base = np.array(list(FABRICS.values())[draw.choice(len(odds), p=odds / odds.sum())])
        red, green, blue = np.clip(base * (1 + 0.12 * draw.standard_normal()), 0.03, 0.95)
        return float(red), float(green), float(blue)

    background = colour(normal(style.lightness, 0.12, 0.9), normal(style.warmth), normal(style.greenness))
    shapes = []
    if style.clutter:
        for _ in range(draw.integers(1, 4)):
            where = (draw.uniform(-1, 1), draw.uniform(-1, 1), draw.uniform(0.2, 0.9), draw.uniform(0.2, 0.9))
            tint = colour(*(style.clutter * 0.7 * draw.standard_normal(3) * (0.22, 0.8, 0.8)))
            shapes.append((*map(float, where), *map(float, tint)))
    odds = np.array(style.collars, dtype=float)
    return Photo(
        yaw=normal((0.0, 0.15 * style.tilt)),
        pitch=normal((0.0, 0.05 * style.tilt)),
        roll=normal((0.0, 0.045 * style.tilt)),
        scale=normal(style.scale),
        offset_x=normal(style.offset_x),
        offset_y=normal(style.offset_y),
        smile=float(draw.uniform(-0.25, 1.0)),
        mouth_open=float(max(0.0, draw.uniform(-1.2, 1.0))),
        brow_raise=normal((0.0, 0.5)),
        lids=normal((0.96, 0.09), 0.74, 1.12),
        gaze=normal((0.0, 0.4)),
        hair_sway=normal((0.0, 0.5)),
        light_x=normal(style.light_x, -1, 1),
        light_y=normal(style.light_y, -1, 0.4),
        contrast=normal(style.contrast, 0.08, 0.7),
        exposure=normal(style.exposure),
        balance=normal(style.balance),
        background=background,
        gradient=normal(style.gradient),
        vignette=normal(style.vignette, 0.0, 0.6),
        clutter=tuple(shapes),
        collar=COLLARS[draw.choice(len(odds), p=odds / odds.sum())],
        cloth=cloth(),
        cloth_2=cloth(),
        noise=normal(style.noise, 0.002, 0.06),
        blur=normal(style.blur, 0.0, 1.0),
        noise_seed=int(draw.integers(2**62)),
    )
