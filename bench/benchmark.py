"""The schema of a benchmark: what is asked. How it is run is `bench.workbench.Runtime`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from bench.axes import Axes, Sources, over_usual
from bench.config import method_spec
from lmia.specs import RequestError, Spec, UnknownName

Role = Literal["auto", "ranked", "reference", "control", "planted"]
NOT_OF_A_CELL = ("grid", "suite", "name", "title", "description")
"""What of a benchmark is no part of its cells: two benchmarks share a row whatever they are called."""


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
    """A named benchmark."""

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
    default: Annotated[Axes, BeforeValidator(over_usual)] = Field(
        default_factory=lambda: Axes(**over_usual({})), description="axis values where a block says nothing"
    )
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
