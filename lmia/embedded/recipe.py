"""The embedded base model's recipe: what it is trained with, and on which people of the synthetic population."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from lmia.checked import is_kept, keep
from lmia.embedded.architecture import ArchitectureSpec
from lmia.embedded.lists import LISTS, Listed, write_lists
from lmia.specs import RequestError, Spec

if TYPE_CHECKING:
    from lmia.data.pictures import Pictures

PICTURES = "pictures.parquet"


class PretrainSpec(Spec):
    """What decides the base model. People are numbered in the population; those not named here are not seen."""

    seed: int = Field(0, ge=0, description="of weights, order, noises and dropout")
    population: dict[str, Any] = Field(default_factory=dict, description="fields of the population's spec")
    sources: dict[str, int] = Field({"wild": 1800, "east": 1200}, description="source -> people trained on")
    photos: int = Field(4, ge=1, description="trained photos of each person; the next one is kept unseen")
    unseen_people: int = Field(1000, ge=1, description="people held out, spread over the sources, one photo each")
    domains: int = Field(8, ge=0, description="named people of whom many photos are trained and many kept unseen")
    domain_photos: int = Field(40, ge=1, description="trained photos of a domain, and as many unseen")
    architecture: ArchitectureSpec = Field(default_factory=ArchitectureSpec)
    vae_steps: int = Field(4500, ge=1)
    vae_batch: int = Field(4, ge=1)
    vae_lr: float = Field(1.5e-3, gt=0)
    kl: float = Field(5e-4, ge=0, description="weight of the mean KL term per latent value")
    edges: float = Field(0.5, ge=0, description="weight of the L1 distance between picture gradients")
    unet_steps: int = Field(15000, ge=1)
    unet_batch: int = Field(16, ge=1)
    unet_lr: float = Field(1e-3, gt=0)
    warmup_steps: int = Field(300, ge=0)
    final_lr: float = Field(0.03, gt=0, le=1, description="last learning rate relative to the highest; cosine decay")
    caption_dropout: float = Field(0.1, ge=0, le=1, description="share of captions replaced by nothing")
    short_captions: float = Field(0.1, ge=0, le=1, description="share replaced by the class or the generic prompt")
    ema: float = Field(0.999, ge=0, lt=1, description="of U-Net and text encoder; warmed up as (1 + n) / (10 + n)")
    start: str | None = Field(
        None,
        description="an embedded base to go on from: its tokenizer and VAE are kept, U-Net and text encoder are "
        "trained for unet_steps more. Give another seed, or the same noises are seen again",
    )


def list_pictures(spec: PretrainSpec) -> Listed:
    """Draws the pictures of all of the base model's lists."""
    from lmia.data.pictures import Pictures
    from lmia.data.sources import SOURCES

    source_kind = SOURCES.get("population")
    population = source_kind.Spec(**{"size": spec.architecture.size, **spec.population})
    names: list[str] = []
    domains: list[str | None] = []
    tables: list[Pictures] = []

    def add(name: str, source: str, people: Sequence[str], photos: Sequence[int], *, by_name: bool = False) -> None:
        drawn = source_kind.pictures(population, source, name, list(people), list(photos))
        domain = None
        if by_name:
            drawn, domain = named(drawn, population, source, people[0])
        tables.append(drawn)
        names.extend([name] * len(drawn))
        domains.extend([domain] * len(drawn))

    share = sum(spec.sources.values())
    for number, (source, people) in enumerate(sorted(spec.sources.items())):
        identities = source_kind.identities(population, source)
        held_out = -(-spec.unseen_people * people // share)
        own = spec.domains // len(spec.sources) + (number < spec.domains % len(spec.sources))
        if len(identities) < people + held_out + own:
            raise RequestError(
                f"sources.{source} = {people}: with {held_out} people held out and {own} domains this needs "
                f"{people + held_out + own} people, the population has {len(identities)}"
            )
        seen, rest = identities[:people], identities[people:]
        add("trained", source, seen, range(spec.photos))
        add("unseen_photo", source, seen[:held_out], [spec.photos])
        add("unseen_person", source, rest[:held_out], [0])
        for identity in rest[held_out : held_out + own]:
            add("domain_trained", source, [identity], range(spec.domain_photos), by_name=True)
            add("domain_unseen", source, [identity], range(spec.domain_photos, 2 * spec.domain_photos), by_name=True)
    return Listed(names, domains, Pictures.concat(tables))


def cached_lists(spec: PretrainSpec, work: Path) -> Listed:
    """`list_pictures`, drawn once (minutes) and kept in `work`."""
    import pyarrow.parquet as pq

    from lmia.data.pictures import Pictures

    what = spec.model_dump_json()
    if not all([is_kept(work / name, what) for name in (LISTS, PICTURES)]):  # both are looked at, so both are named
        listed = list_pictures(spec)
        keep(work / LISTS, lambda file: write_lists(listed, file), what)
        keep(work / PICTURES, lambda file: file.write_bytes(listed.pictures.to_parquet()), what)
    table = pq.read_table(work / LISTS)
    pictures = Pictures.from_parquet([(work / PICTURES).read_bytes()])
    return Listed(table["list"].to_pylist(), table["domain"].to_pylist(), pictures)


def named(pictures: "Pictures", population: Any, source: str, identity: str) -> tuple["Pictures", str]:
    """A person's pictures with captions that carry the name, and the name."""
    from lmia.data.captions import named_caption
    from lmia.data.population import parse_identity, person, photo

    who = person(population, source, parse_identity(source, identity))
    numbers = [int(record.rsplit("/", 1)[1]) for record in pictures.ids]
    captions = [named_caption(source, who, photo(population, source, who.index, number)) for number in numbers]
    return pictures.with_columns(caption=captions), who.name
