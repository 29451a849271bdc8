"""The schema of a benchmark: what is asked. How it is run is `bench.workbench.Runtime`.

The settings of registered methods are plain values here, because blocks and overrides are merged into them; the
methods of `Benchmark` are what they mean, typed and checked by the method that they are for.
"""

from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field, JsonValue, field_validator

from bench.axes import Axes, Scalar, Sources, over_usual
from bench.config import method_spec
from lmia.attacks import Attack, attack_from
from lmia.data.marks import MARKS
from lmia.data.sources import SOURCES
from lmia.finetune.methods import METHODS, Method
from lmia.models.sample import SampleSpec
from lmia.resolve import resolve_base
from lmia.specs import RequestError, Spec, UnknownName

Role = Literal["ranked", "reference", "control", "planted"]
Evidence = Literal["synthetic", "real pictures, miniature base", "real"]
"""What rows are measured on: drawn pictures, whatever the base; photographs and a miniature; neither."""
Settings = dict[str, JsonValue]
NOT_OF_A_CELL = ("grid", "suite", "name", "title", "description")
"""What of a benchmark is no part of its cells: two benchmarks share a row whatever they are called."""


class Data(NamedTuple):
    """Where the pictures come from.

    Attributes:
        kind: name of the registered data source.
        spec: its settings.
    """

    kind: str
    spec: Spec


class Block(Spec):
    """A part of the grid: a product of axis values over the benchmark's default cell."""

    name: str = Field(min_length=1)
    axes: dict[str, Annotated[list[Scalar], Field(min_length=1)]] = Field(default_factory=dict)
    role: Role | Literal["auto"] = "auto"
    settings: Settings = Field(default_factory=dict, description="deep overrides of the benchmark's settings")

    @field_validator("axes", mode="before")
    @classmethod
    def _lists(cls, value: object) -> object:
        if isinstance(value, dict):
            return {k: v if isinstance(v, list) else [v] for k, v in value.items()}
        return value


class Benchmark(Spec):
    """A named benchmark."""

    name: str = Field("benchmark", pattern=r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$")
    title: str = ""
    description: str = ""
    data: Settings = Field({"kind": "population"}, description="kind, and its settings")
    sources: Sources = Sources()
    people: dict[str, int] = Field(
        default_factory=lambda: {"A": 64, "B": 64, "C": 64, "aux": 64, "query": 64},
        description="people in each part of each source; A and B are the twins' halves, C and aux are the attacker's",
    )
    split_seed: int = Field(0, ge=0, description="which person falls into which part")
    trained_photos: int = Field(2, ge=1, description="photos of a person that are trained on and queried")
    held_photos: int = Field(2, ge=0, description="further photos of a person that are held back")
    finetune: Settings = Field(default_factory=dict, description="settings of the fine-tuning method")
    generate: Settings = Field(default_factory=dict, description="settings of the sampler, beside the axes")
    pictures: int = Field(2500, ge=2, description="pictures in a generated or auxiliary set")
    slice: int = Field(64, ge=1, description="pictures in a generation or scoring job")
    attacks: dict[str, Settings] = Field(default_factory=dict, description="settings by attack")
    marks: dict[str, Settings] = Field(default_factory=dict, description="settings by watermark")
    dtype: Literal["float32", "float16", "bfloat16"] = Field("float32", description="dtype of scoring")
    batch: int = Field(16, ge=1, description="pictures per U-Net call while scoring; rounding depends on it")
    worlds: int = Field(1, ge=1, le=100, description="realisations of each cell; each has both halves")
    controls: tuple[Literal["base", "blind", "loss_gap"], ...] = Field(
        ("base", "blind", "loss_gap"), description="controls beside twin and source_auc, which are always there"
    )
    default: Annotated[Axes, BeforeValidator(over_usual)] = Field(
        default_factory=Axes.usual, description="axis values where a block says nothing"
    )
    grid: tuple[Block, ...] = ()
    suite: tuple[dict[str, Scalar], ...] = Field(
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

    def evidence(self, base: str) -> Evidence:
        """What is measured on a base model: whether the pictures are drawn, and the model a miniature."""
        if self.data.get("kind") == "population":
            return "synthetic"
        return "real pictures, miniature base" if resolve_base(base).is_miniature() else "real"

    def check(self, where: str) -> None:
        """Refuse settings that the registered methods that they are for do not have; `where` begins every message."""
        self.data_source(where)
        self.sampler(where)
        for method in {self.default.method, *(name for block in self.grid for name in block.axes.get("method", []))}:
            self.finetuning(str(method), where)
        for name in self.attacks:
            self.attack(name, where)
        for name in self.marks:
            self.mark(name, where)

    def data_source(self, where: str = "benchmark") -> Data:
        """Where the pictures come from."""
        settings = {key: value for key, value in self.data.items() if key != "kind"}
        if "kind" not in self.data:
            raise RequestError(f"{where}: data.kind is missing (known: {', '.join(SOURCES.names())})")
        kind = str(self.data["kind"])
        return Data(kind, method_spec(SOURCES.get(kind).Spec, settings, f"{where}: data"))

    def sampler(self, where: str = "benchmark", **axes: Scalar) -> SampleSpec:
        """The sampler under the given axes and seed."""
        for key in ("guidance", "steps"):
            if key in self.generate:
                raise RequestError(f"{where}: generate.{key}: {key} is an axis; set it under default or grid")
        return method_spec(SampleSpec, {**self.generate, **axes}, f"{where}: generate")

    def finetuning(self, method: str, where: str = "benchmark", **more: Scalar) -> Method:
        """A fine-tuning method: what is set for all methods, and over it what is set for this one."""
        known: type[Method] = METHODS.get(method)
        own = self.finetune.get(method, {})
        shared = {key: value for key, value in self.finetune.items() if key not in METHODS.names()}
        if not isinstance(own, dict):
            raise RequestError(f"{where}: finetune.{method} = {own!r}: settings of {method!r} are a mapping")
        return method_spec(known, {**shared, **own, **more}, f"{where}: finetune")

    def attack(self, name: str, where: str = "", **more: Scalar) -> Attack:
        """An attack under the benchmark's settings."""
        return attack_from(name, {**self.attacks.get(name, {}), **more}, _at(where, "attacks", name))

    def mark(self, name: str, where: str = "") -> Spec:
        """A watermark's settings."""
        return method_spec(MARKS.get(name).Spec, self.marks.get(name, {}), _at(where, "marks", name))


def _at(where: str, section: str, name: str) -> str:
    return f"{where}: {section}.{name}" if where else f"{section}.{name}"
