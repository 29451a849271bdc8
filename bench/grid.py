"""Axes to cells: presets, their validation, and the points of the grid that they ask for.

A benchmark is YAML (a named preset or a file), may extend another and may be overridden by `--set a.b=c`; all of it
goes through the same validation. A *cell* is one point of the grid without any seed or half; an axis that does not
apply to an attack is null and does not multiply cells.
"""

import itertools
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator

from lmia.specs import RequestError, Spec, UnknownName, explain

AUX = ("shadow", "part_c", "real", "base", "mix")
PROMPTS = ("class", "generic", "caption")
CAPTIONS = ("caption", "class", "empty")
QUERIES = ("same_source", "member_person", "other_source", "wild", "generated")
ESTIMANDS = {
    "same_source": "same_source",
    "member_person": "person",
    "other_source": "cross_source",
    "wild": "cross_source",
    "generated": "uncontrolled",
}
Role = Literal["auto", "ranked", "reference", "control", "planted"]
Scalar = str | int | float | None


class Axes(Spec):
    """One point of the grid. Null: the axis does not apply to the attack."""

    source: str | None = Field("north", description="where the target's training people come from")
    aux: str | None = Field("shadow", description="the attack model's negatives: " + ", ".join(AUX))
    target_mark: str | None = Field("none", description="watermark on the target's training pictures")
    member_mark: str | None = Field("none", description="watermark on queried members; 'both' averages over states")
    nonmember_mark: str | None = Field("none", description="watermark on queried non-members; likewise")
    guidance: float | None = Field(7.5, ge=0, le=100, description="guidance scale, 0 unconditional, 1 conditional")
    prompt: str | None = Field("class", description="prompt of the generated sets: " + ", ".join(PROMPTS))
    steps: int | None = Field(100, ge=1, le=1000, description="inference steps")
    epochs: int | None = Field(400, ge=1, description="fine-tuning epochs of the target")
    method: str | None = Field("full", description="fine-tuning method")
    attack: str | None = Field("generated_set_classifier", description="the attack")
    captions: str | None = Field("caption", description="captions that a scoring attack is given")
    query: str | None = Field("same_source", description="query class: " + ", ".join(QUERIES))
    base: str | None = Field("tiny", description="the model that was fine-tuned: an embedded one, a folder, a hub id")


AXES = tuple(Axes.model_fields)
TARGET_AXES = ("source", "target_mark", "member_mark", "nonmember_mark", "epochs", "method", "base")
"""Which say what an attack is tried on."""
NOT_OF_A_CELL = ("grid", "suite", "name", "title", "description")
"""What of a benchmark is no part of its cells: two benchmarks share a row whatever they are called."""


class Sources(Spec):
    """Which source of the data plays which part."""

    institutions: tuple[str, str] = Field(("north", "south"), description="two sources seen in fine-tuning only")
    wild: str = Field("wild", description="pictures of anybody, for the query class `wild`")

    def other(self, source: str) -> str:
        """The institution that is not `source`."""
        first, second = self.institutions
        return second if source == first else first


class Block(Spec):
    """A part of the grid: a product of axis values over the benchmark's default cell."""

    name: str = Field(min_length=1)
    axes: dict[str, list[Any]] = Field(default_factory=dict)
    role: Role = "auto"
    settings: dict[str, Any] = Field(default_factory=dict, description="deep overrides of the benchmark's settings")

    @field_validator("axes", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {k: v if isinstance(v, list) else [v] for k, v in value.items()}
        return value


class Benchmark(Spec):
    """A named benchmark: what is asked. How it is run is `bench.workbench.Runtime`."""

    name: str = Field("benchmark", pattern=r"^[A-Za-z0-9_.-]+$")
    title: str = ""
    description: str = ""
    data: dict[str, Any] = Field(default_factory=lambda: {"kind": "population"}, description="kind, and its settings")
    sources: Sources = Sources()
    people: dict[str, int] = Field(
        default_factory=lambda: {"A": 64, "B": 64, "C": 64, "aux": 64, "query": 64},
        description="people in each part of each source; A and B are the twins' halves, C and aux are the attacker's",
    )
    split_seed: int = Field(0, ge=0, description="which person falls into which part")
    trained_photos: int = Field(2, ge=1, description="photos of a person that are trained on and queried")
    held_photos: int = Field(2, ge=0, description="further photos of a person that are held back")
    finetune: dict[str, Any] = Field(default_factory=dict, description="settings of the fine-tuning method")
    generate: dict[str, Any] = Field(default_factory=dict, description="settings of the sampler, beside the axes")
    pictures: int = Field(2500, ge=2, description="pictures in a generated or auxiliary set")
    slice: int = Field(64, ge=1, description="pictures in a generation or scoring job")
    attacks: dict[str, dict[str, Any]] = Field(default_factory=dict, description="settings by attack")
    marks: dict[str, dict[str, Any]] = Field(default_factory=dict, description="settings by watermark")
    dtype: Literal["float32", "float16", "bfloat16"] = Field("float32", description="dtype of scoring")
    batch: int = Field(16, ge=1, description="pictures per U-Net call while scoring; rounding depends on it")
    worlds: int = Field(1, ge=1, le=100, description="realisations of each cell; each has both halves")
    controls: tuple[Literal["base", "blind", "loss_gap"], ...] = Field(
        ("base", "blind", "loss_gap"), description="controls beside twin and source_auc, which are always there"
    )
    default: Axes = Axes()
    grid: tuple[Block, ...] = ()
    suite: tuple[dict[str, Any], ...] = Field(
        (), description="targets (axes beside the default's) on which attacks are ranked; empty: those that all share"
    )

    @field_validator("people")
    @classmethod
    def _parts(cls, value: dict[str, int]) -> dict[str, int]:
        wanted = ("A", "B", "C", "aux", "query")
        for part, count in value.items():
            if part not in wanted:
                raise ValueError(str(UnknownName("part", part, wanted)))
            if count < 2:
                raise ValueError(f"people.{part} = {count}: at least 2")
        if value.get("A") != value.get("B"):
            raise ValueError(f"people.A = {value.get('A')} and people.B = {value.get('B')}: the halves must be equal")
        return value

    @property
    def evidence(self) -> Literal["synthetic", "real"]:
        """Whether the pictures are drawn or photographed."""
        return "synthetic" if self.data.get("kind") == "population" else "real"


class Cell(Spec):
    """One question: a point of the grid under the settings of its block."""

    axes: Axes
    role: Literal["ranked", "reference", "control", "planted"]
    estimand: str
    flags: tuple[str, ...] = ()
    settings: Benchmark
    blocks: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Attack, query and what differs from the benchmark's default, for people."""
        default = self.settings.default.resolved()
        parts = [str(self.axes.attack), str(self.axes.query)]
        parts += [
            f"{k}={v}"
            for k, v in self.axes.resolved().items()
            if v is not None and v != default[k] and k not in ("attack", "query")
        ]
        return " ".join(parts)


def preset_names() -> list[str]:
    """The presets that come with lmia."""
    folder = resources.files("bench.presets")
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))


def load(preset: str, overrides: Iterable[str] = ()) -> Benchmark:
    """A benchmark from a preset's name or a YAML file, with `a.b=c` overrides, validated as a whole.

    Raises:
        RequestError: unknown preset, key or axis value (with the nearest match), or a value out of bounds.
    """
    raw = _raw(preset, ())
    for text in overrides:
        override(raw, text, "people.A=32")
    return validate(raw, preset)


def validate(raw: Mapping[str, Any], where: str) -> Benchmark:
    """The benchmark that plain values describe; RequestError names what is wrong with them."""
    try:
        benchmark = Benchmark(**raw)
    except ValidationError as error:
        raise explain(error, Benchmark, where) from None
    check_settings(benchmark, where)
    found = cells(benchmark)
    for target in suite(benchmark):
        if not any(all(getattr(cell.axes, axis) == value for axis, value in target.items()) for cell in found):
            raise RequestError(f"{where}: suite: no cell of the grid has the target {target}")
    return benchmark


def suite(benchmark: Benchmark) -> list[dict[str, Any]]:
    """The targets on which attacks are ranked, all of TARGET_AXES each; none if they are not named.

    Raises:
        RequestError: an axis that does not belong to a target.
    """
    default = benchmark.default.resolved()
    for target in benchmark.suite:
        for axis in target:
            if axis not in TARGET_AXES:
                raise UnknownName(f"axis in {benchmark.name}: suite", axis, TARGET_AXES)
    return [{axis: target.get(axis, default[axis]) for axis in TARGET_AXES} for target in benchmark.suite]


def _raw(preset: str, above: tuple[str, ...]) -> dict[str, Any]:
    if preset in above:
        raise RequestError(f"preset {preset!r} extends itself: {' -> '.join((*above, preset))}")
    path = Path(preset)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise RequestError(f"no such benchmark file: {preset}")
        text = path.read_text(encoding="utf-8")
    elif preset in preset_names():
        text = (resources.files("bench.presets") / f"{preset}.yaml").read_text(encoding="utf-8")
    else:
        raise UnknownName("preset", preset, preset_names())
    raw = _yaml(text, preset) or {}
    if not isinstance(raw, dict):
        raise RequestError(f"{preset}: a benchmark is a mapping, got {type(raw).__name__}")
    parent = raw.pop("extends", None)
    if parent is None:
        return raw
    parent_path = path.parent / str(parent)
    beside = path.suffix and Path(str(parent)).suffix and parent_path.is_file()
    return merge(_raw(str(parent_path) if beside else str(parent), (*above, preset)), raw)


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RequestError(f"{where}: not YAML: {' '.join(str(error).split())}") from None


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`above` over `below`: mappings are merged, everything else (lists too) is replaced.

    A mapping of another `kind` replaces, too: the settings of one kind of data mean nothing to another.
    """
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = value
        if (
            isinstance(old, Mapping)
            and isinstance(value, Mapping)
            and value.get("kind", old.get("kind")) == old.get("kind")
        ):
            merged[key] = merge(old, value)
    return merged


def override(raw: dict[str, Any], text: str, example: str, option: str = "--set") -> None:
    """Set what `A.B=VALUE` says in plain nested values; the value is YAML. RequestError names the option."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise RequestError(f"{option} {text!r}: expected KEY=VALUE, such as {option} {example}")
    _put(raw, path.split("."), _yaml(value, f"{option} {text!r}"), text)


def _put(raw: dict[str, Any], path: list[str], value: Any, text: str) -> None:
    here: Any = raw
    for key in path[:-1]:
        if isinstance(here, list) and key.isdigit() and int(key) < len(here):
            here = here[int(key)]
        elif isinstance(here, dict):
            here = here.setdefault(key, {})
        else:
            raise RequestError(f"--set {text!r}: nothing to set at {key!r}")
    if not isinstance(here, dict):
        raise RequestError(f"--set {text!r}: {path[-2]!r} has no keys")
    here[path[-1]] = value


def check_settings(benchmark: Benchmark, where: str) -> None:
    """Validate what is typed by registered methods: data, fine-tuning, sampler, attacks and marks."""
    from lmia.attacks import ATTACKS
    from lmia.data.marks import MARKS

    data_spec(benchmark, where)
    sample_spec(benchmark, where)
    for method in {benchmark.default.method, *_axis_values(benchmark, "method")}:
        finetune_spec(benchmark, str(method), where)
    for name, settings in benchmark.attacks.items():
        method_spec(ATTACKS.get(name).Spec, settings, f"{where}: attacks.{name}")
    for name, settings in benchmark.marks.items():
        method_spec(MARKS.get(name).Spec, settings, f"{where}: marks.{name}")


def _axis_values(benchmark: Benchmark, axis: str) -> set[Any]:
    return {value for block in benchmark.grid for value in block.axes.get(axis, [])}


def method_spec(spec: type[Any], settings: Mapping[str, Any], where: str) -> Any:
    """A method's own spec from plain settings; RequestError names what is wrong with them."""
    try:
        return spec(**settings)
    except ValidationError as error:
        raise explain(error, spec, where) from None


def data_spec(benchmark: Benchmark, where: str = "benchmark") -> tuple[str, Any]:
    """The kind of data source and its spec."""
    from lmia.data.sources import SOURCES

    settings = dict(benchmark.data)
    kind = settings.pop("kind", None)
    if kind is None:
        raise RequestError(f"{where}: data.kind is missing (known: {', '.join(SOURCES.names())})")
    return kind, method_spec(SOURCES.get(kind).Spec, settings, f"{where}: data")


def sample_spec(benchmark: Benchmark, where: str = "benchmark", **axes: Any) -> Any:
    """The sampler's spec under the given axes."""
    from lmia.models.sample import SampleSpec

    for key in ("guidance", "steps"):
        if key in benchmark.generate:
            raise RequestError(f"{where}: generate.{key}: {key} is an axis; set it under default or grid")
    return method_spec(SampleSpec, {**benchmark.generate, **axes}, f"{where}: generate")


def finetune_spec(benchmark: Benchmark, method: str, where: str = "benchmark", **more: Any) -> Any:
    """A fine-tuning method's spec."""
    from lmia.finetune.methods import METHODS

    known = METHODS.get(method).Spec
    own = {k: v for k, v in benchmark.finetune.items() if k not in METHODS.names()}
    own |= benchmark.finetune.get(method, {})
    return method_spec(known, {**own, **more}, f"{where}: finetune")


def cells(benchmark: Benchmark) -> list[Cell]:
    """Every question of a benchmark once, in the order of its blocks.

    Raises:
        RequestError: an unknown axis or value, with the nearest match.
    """
    found: dict[str, Cell] = {}
    for block in benchmark.grid or (Block(name="default"),):
        where = f"{benchmark.name}: grid block {block.name!r}"
        settings = _settings(benchmark, block, where)
        for axis in block.axes:
            if axis not in AXES:
                raise UnknownName(f"axis in {where}", axis, AXES)
        for values in itertools.product(*block.axes.values()):
            chosen = dict(zip(block.axes, values, strict=True))
            cell = _cell(settings, block, chosen, where)
            key = str(cell.model_dump(mode="json", exclude={"blocks"}))
            known = found.get(key)
            blocks = (*known.blocks, block.name) if known else (block.name,)
            found[key] = cell.model_copy(update={"blocks": blocks})
    return list(found.values())


def _settings(benchmark: Benchmark, block: Block, where: str) -> Benchmark:
    """The benchmark as this block sees it: without grid and names, which are not part of a cell."""
    raw = benchmark.model_dump(exclude_defaults=True, exclude={*NOT_OF_A_CELL})
    raw = merge(raw, block.settings)
    for key in NOT_OF_A_CELL:
        if key in block.settings:
            raise RequestError(f"{where}: settings.{key} cannot be overridden by a block")
    try:
        settings = Benchmark(**raw)
    except ValidationError as error:
        raise explain(error, Benchmark, f"{where}: settings") from None
    if block.settings:
        check_settings(settings, where)
    return settings


def _cell(settings: Benchmark, block: Block, chosen: dict[str, Any], where: str) -> Cell:
    try:
        axes = Axes(**{**settings.default.model_dump(), **chosen})
    except ValidationError as error:
        raise explain(error, Axes, where) from None
    _check_values(axes, settings, where)
    axes = axes.model_copy(update={axis: None for axis in not_applicable(axes)})
    estimand = ESTIMANDS[str(axes.query)]
    confounded = axes.member_mark != axes.nonmember_mark
    one_state = axes.target_mark not in (None, "none") and axes.member_mark != "both"
    role = block.role
    if role in ("auto", "ranked"):
        sound = estimand == "same_source" and not confounded and not one_state
        if role == "ranked" and not sound:
            raise RequestError(
                f"{where}: role 'ranked' is for same-source queries with matched marks averaged over both states "
                f"(query={axes.query}, target_mark={axes.target_mark}, member_mark={axes.member_mark}, "
                f"nonmember_mark={axes.nonmember_mark})"
            )
        role = "ranked" if sound else "reference"
    return Cell(
        axes=axes,
        role=role,
        estimand=estimand,
        flags=("confounded",) if confounded else (),
        settings=settings,
        blocks=(block.name,),
    )


def _check_values(axes: Axes, settings: Benchmark, where: str) -> None:
    from lmia.attacks import ATTACKS
    from lmia.data.marks import MARKS
    from lmia.finetune.methods import METHODS

    marks = MARKS.names()
    allowed = {
        "source": settings.sources.institutions,
        "aux": AUX,
        "prompt": PROMPTS,
        "captions": CAPTIONS,
        "query": QUERIES,
        "target_mark": marks,
        "member_mark": [*marks, "both"],
        "nonmember_mark": [*marks, "both"],
        "attack": [n for n in ATTACKS.names() if ATTACKS.get(n).role == "attack"],
        "method": METHODS.names(),
    }
    for axis, known in allowed.items():
        value = getattr(axes, axis)
        if value not in known:
            raise UnknownName(f"{axis} in {where}", value, known)
    for axis in ("guidance", "steps", "epochs", "base"):
        if getattr(axes, axis) is None:
            raise RequestError(f"{where}: {axis} = null: an axis becomes null by itself where it does not apply")
    if "both" in (axes.member_mark, axes.nonmember_mark):
        if axes.member_mark != axes.nonmember_mark:
            raise RequestError(f"{where}: member_mark and nonmember_mark are 'both' together or not at all")
        if axes.target_mark == "none":
            raise RequestError(f"{where}: member_mark = 'both' averages over marked and clean: give a target_mark")
    if axes.query == "member_person" and settings.held_photos < 1:
        raise RequestError(f"{where}: query = 'member_person' needs held_photos >= 1 (it is {settings.held_photos})")


def not_applicable(axes: Axes) -> set[str]:
    """Axes that mean nothing to the cell's attack."""
    from lmia.attacks import ATTACKS

    attack = ATTACKS.get(str(axes.attack))
    idle = set()
    if "negatives" not in attack.needs:
        idle.add("aux")
    if "positives" not in attack.needs:
        idle |= {"guidance", "prompt", "steps"}
    if "captions" not in attack.needs and "model" not in attack.needs:
        idle.add("captions")
    return idle
