"""An audit as artifacts: which sets, models, learned states and scores answer it, and which attacks are left out."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from bench.artifacts.artifact import Artifact
from bench.artifacts.learned import learned, shadow_inputs
from bench.artifacts.models import given_model, tuned_model
from bench.artifacts.pictures import SECOND_SET, FolderSetSpec, GeneratedSpec, drawn_set, real_set
from bench.artifacts.scores import BlindCrossfitSpec, ScoresSpec, crossfitted, scores
from bench.audit.request import MEMBERS, NONMEMBERS, Audit, check, interleaved, rankable
from lmia.attacks import ATTACKS, Attack, attack_from
from lmia.attacks.blind import Blind
from lmia.attacks.calibrated import Calibrated
from lmia.attacks.encoders import VaeEncoder
from lmia.data.captions import generic_prompt
from lmia.data.parts import assign
from lmia.data.sources.imagefolder import ImageFolder
from lmia.models.forms import words
from lmia.resolve import resolve_base, resolve_model, with_article
from lmia.specs import RequestError

FALLBACK = "tiny"
"""The model whose VAE compares pictures where no other model is given."""
DRAWN, SCORED = 64, 256
"""Pictures in a drawing and in a scoring job."""


@dataclass(frozen=True)
class Line:
    """One attack of an audit: scores by set, on the target and on the base model (empty without one)."""

    attack: str
    target: dict[str, Artifact]
    base: dict[str, Artifact]
    no_base: str | None = None


@dataclass(frozen=True)
class AuditPlan:
    """What an audit makes.

    Attributes:
        audit: the request.
        size: picture side in px.
        lines: the attacks that are made.
        left_out: the others, and why.
        blind: scores of classifiers that never see the model, by what they look at.
        sets: the two sets of pictures.
        model: the audited model; None where only its pictures are given.
        drawn: what the target drew, or was given as drawn by it.
    """

    audit: Audit
    size: int
    lines: tuple[Line, ...]
    left_out: dict[str, str]
    blind: dict[str, Artifact]
    sets: dict[str, Artifact]
    model: Artifact | None = None
    drawn: Artifact | None = None

    def artifacts(self) -> list[Artifact]:
        """Everything that has to be made."""
        scores = [a for line in self.lines for side in (line.target, line.base) for a in side.values()]
        return [*self.sets.values(), *self.blind.values(), *scores, *([self.drawn] if self.drawn else [])]

    @property
    def given_as(self) -> dict[str, str]:
        """The options that name models, by the reference of the model."""
        return {} if self.model is None else {self.model.spec.reference: "model"}


def plan(audit: Audit, tell: Callable[[str], None] = lambda _: None) -> AuditPlan:
    """The artifacts of an audit.

    Raises:
        RequestError: a mistake in the request, or no attack is possible with what is given.
    """
    return _Planner(audit, check(audit, tell)).plan()


@dataclass
class _Planner:
    audit: Audit
    size: int

    # ---- pictures

    def folder(self, label: str, root: str, people: list[str] | None = None) -> Artifact:
        """All pictures of a folder, or of some of its people."""
        spec = self.audit.spec_of(label, root, self.size)
        names = ImageFolder.identities(spec, label) if people is None else people
        whole = FolderSetSpec(
            data=spec,
            digest=ImageFolder.digest(spec, label),
            source=label,
            identities=tuple(names),
            count=sum(ImageFolder.photos(spec, label, name) for name in names),
        )
        return real_set("imagefolder", whole)

    @cached_property
    def sets(self) -> dict[str, Artifact]:
        return {label: self.folder(label, self.audit.folders[label]) for label in (MEMBERS, NONMEMBERS)}

    @cached_property
    def captions(self) -> dict[str, dict[str, str | None]]:
        """Captions of the two sets by picture."""
        specs = {label: self.audit.spec_of(label, self.audit.folders[label], self.size) for label in self.sets}
        return {label: ImageFolder.captions(spec, label) for label, spec in specs.items()}

    @cached_property
    def bare(self) -> list[str]:
        """Pictures of either set without a caption."""
        return [name for captions in self.captions.values() for name, text in captions.items() if not text]

    # ---- models

    @cached_property
    def base(self) -> Artifact | None:
        if self.audit.base is None:
            return None
        given = resolve_model(self.audit.base)
        if given.form != "pipeline":
            raise RequestError(
                f"base = {self.audit.base!r}: this is {with_article(given.form)}; a base is a whole model, "
                "a diffusers folder or a pinned hub id"
            )
        return given_model(given)

    @cached_property
    def model(self) -> Artifact | None:
        if self.audit.model is None:
            return None
        given = resolve_model(self.audit.model)
        if given.needs_base and self.base is None:
            raise RequestError(
                f"model = {self.audit.model!r}: this is {with_article(given.form)}; "
                "name the model that it belongs to with --base"
            )
        if (new := words(self.audit.model)) and not any(
            word.casefold() in (text or "").casefold()
            for word in new
            for captions in self.captions.values()
            for text in captions.values()
        ):
            raise RequestError(
                f"model = {self.audit.model!r}: this is a textual inversion, which changes nothing but the word "
                f"{new[0]!r}, and no caption holds it; write it into the captions, or give one for all with --caption"
            )
        return given_model(given, self.base)

    @cached_property
    def comparing(self) -> Artifact:
        """The model whose VAE compares pictures: the base, else the model (tuning leaves its VAE alone), else ours."""
        if self.base is not None:
            return self.base
        if self.model is not None:
            return self.model
        return given_model(resolve_base(FALLBACK))

    @cached_property
    def shadow(self) -> dict[str, Artifact]:
        """A shadow model tuned on every other person of the shadow folder, with both halves."""
        from bench.config import method_spec
        from lmia.finetune.methods import METHODS

        audit = self.audit
        assert audit.shadow is not None and self.base is not None
        spec = audit.spec_of("shadow", audit.shadow, self.size)
        people = ImageFolder.identities(spec, "shadow")
        if len(people) < 4:
            raise RequestError(f"shadow = {audit.shadow!r}: {len(people)} people; at least 4 are needed")
        halves = assign(people, {"in": len(people) // 2, "out": len(people) - len(people) // 2}, audit.seed)
        members, nonmembers = (self.folder("shadow", audit.shadow, halves[half]) for half in ("in", "out"))
        tuning = method_spec(METHODS.get(audit.method), {"seed": audit.seed, **audit.finetune}, "finetune")
        if tuning.caption == "caption" and (bare := ImageFolder.uncaptioned(spec, "shadow")):
            raise RequestError(
                f"shadow = {audit.shadow!r}: {bare[0]!r} has no caption (nor have {len(bare) - 1} more); "
                "give captions, or one for all with --caption"
            )
        model = tuned_model(tuning, audit.epochs, self.base, members)
        return shadow_inputs(model, members, nonmembers)

    # ---- drawn sets

    def draws(self, model: Artifact, seed: int) -> Artifact:
        """What a model draws for the audit's prompts."""
        from bench.config import method_spec
        from lmia.models.sample import SampleSpec

        audit = self.audit
        sample = method_spec(SampleSpec, {"dtype": audit.dtype, **audit.sampling, "seed": seed}, "sampling")
        prompts = [audit.prompt] if audit.prompt else []
        if not prompts and not self.bare:
            prompts = interleaved([str(text) for text in captions.values()] for captions in self.captions.values())
        spec = GeneratedSpec(
            sample=sample, prompt="given", prompts=tuple(prompts or [generic_prompt()]), source="", count=audit.drawn
        )
        return drawn_set(model, spec, DRAWN)

    @cached_property
    def positives(self) -> Artifact:
        if self.audit.generated is not None:
            return self.folder("generated", self.audit.generated)
        assert self.model is not None
        return self.draws(self.model, self.audit.seed)

    @cached_property
    def negatives(self) -> Artifact:
        if self.audit.auxiliary is not None:
            return self.folder("auxiliary", self.audit.auxiliary)
        assert self.base is not None
        return self.draws(self.base, self.audit.seed + SECOND_SET)

    # ---- attacks

    def missing(self, attack: Attack) -> str | None:
        """Why an attack cannot be made with what is given; None if it can."""
        needs, audit = attack.needs, self.audit
        if "model" in needs and audit.model is None:
            return "it asks the model itself, and only pictures that it generated were given"
        if "base" in needs and self.base is None and not _compares(attack):
            return "it needs the model before tuning (--base)"
        if "negatives" in needs and audit.auxiliary is None and self.base is None:
            return "it needs pictures of others to learn from (--auxiliary), or the model before tuning (--base)"
        if "shadow" in needs and (audit.shadow is None or self.base is None):
            return "it learns from a shadow model: further people of the same kind (--shadow) and --base"
        if "captions" in needs and self.bare:
            few = f"{len(self.bare)} pictures have none, such as {self.bare[0]!r}"
            return f"it needs captions, and {few} (--caption gives them one)"
        if "model" in needs:
            texts = {f"{label}/{n}": text for label, each in self.captions.items() for n, text in each.items()}
            try:
                attack.check(texts)
            except RequestError as error:
                return str(error)
        return None

    def plan(self) -> AuditPlan:
        chosen: dict[str, Attack] = {}
        left_out: dict[str, str] = {}
        for name in self.audit.attacks or rankable():
            settings = {**self.usual(name), **self.audit.settings.get(name, {})}
            attack = attack_from(name, settings, f"settings.{name}")
            why = self.missing(attack)
            if why is None:
                chosen[name] = attack
            elif self.audit.attacks is not None:
                raise RequestError(f"attack {name!r}: {why}")
            else:
                left_out[name] = why
        if not chosen:
            raise RequestError("no attack is possible: " + "; ".join(f"{n}: {why}" for n, why in left_out.items()))
        lines = tuple(self.line(attack) for attack in chosen.values())
        uses_drawn = any("positives" in attack.needs for attack in chosen.values())
        return AuditPlan(
            audit=self.audit,
            size=self.size,
            lines=lines,
            left_out=left_out,
            blind=self.blind(chosen),
            sets=self.sets,
            model=self.model,
            drawn=self.positives if uses_drawn else None,
        )

    def usual(self, name: str) -> dict[str, Any]:
        """An attack's settings unless others are asked for: the audit's seed, and no picture larger than it is."""
        fields = ATTACKS.get(name).model_fields
        seed = {"seed": self.audit.seed} if "seed" in fields else {}
        return seed | ({"size": min(self.size, fields["size"].default)} if "size" in fields else {})

    def line(self, attack: Attack) -> Line:
        """Scores of both sets on the target, and on the base where that has a meaning."""
        needs = attack.needs
        target = self.scored(attack, self.model, self.positives if "positives" in needs else None)
        no_base: str | None = None
        base: dict[str, Artifact] = {}
        if any(isinstance(each, Calibrated) for each in (attack, *attack.parts)):
            no_base = "it subtracts the base model's score already"
        elif "positives" not in needs:
            base = self.scored(attack, self.base, None) if self.base is not None else {}
        elif "negatives" in needs and self.audit.auxiliary is None:
            no_base = "its negatives are the base model's own pictures"
        elif self.base is not None:
            base = self.scored(attack, self.base, self.draws(self.base, self.audit.seed))
        return Line(attack.name, target, base, no_base)

    def scored(self, attack: Attack, model: Artifact | None, positives: Artifact | None) -> dict[str, Artifact]:
        """An attack's scores of both sets."""
        needs = attack.needs
        compared = self.comparing if "base" in needs else None
        fitted: Artifact | None = None
        if attack.learns:
            sources = {"base": compared} if compared is not None else {}
            if positives is not None:
                sources["positives"] = positives
            if "negatives" in needs:
                sources["negatives"] = self.negatives
            if "shadow" in needs:
                sources |= self.shadow
            fitted = learned(attack, sources)
        asked = "model" in needs
        assert model is not None or not asked
        how = ScoresSpec(
            attack=attack,
            captions="caption" if asked else None,
            noise_seed=self.audit.seed,
            batch=self.audit.batch,
            dtype=self.audit.dtype,
        )
        return {
            label: scores(how, query, SCORED, model=model if asked else None, base=compared, learned=fitted)
            for label, query in self.sets.items()
        }

    def blind(self, chosen: dict[str, Attack]) -> dict[str, Artifact]:
        """The blind controls: of the pictures; of the captions, where an attack is given any."""
        people = [len(artifact.spec.identities) for artifact in self.sets.values()]
        if min(people) < 2:
            return {}
        see: list[Literal["pictures", "captions"]] = ["pictures"]
        different = {text for captions in self.captions.values() for text in captions.values() if text}
        if len(different) > 1 and any("model" in attack.needs for attack in chosen.values()):
            see.append("captions")
        sides = self.sets[MEMBERS], self.sets[NONMEMBERS]
        return {what: crossfitted(BlindCrossfitSpec(blind=Blind(), see=what), *sides) for what in see}


def _compares(attack: Attack) -> bool:
    """Whether an attack needs the base for its VAE only, to compare pictures by."""
    return isinstance(getattr(attack, "encoder", None), VaeEncoder)
