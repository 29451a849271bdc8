"""The files of an audit: scores.parquet, metrics.json, audit.yaml, report.html, report.pdf, SHA256SUMS."""

import hashlib
import importlib.metadata
import io
import platform
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from bench.audit import document, pdf, words
from bench.audit.file import as_yaml
from bench.audit.materials import sums
from bench.audit.record import AuditRecord, Provenance
from bench.audit.request import MEMBERS, NONMEMBERS
from bench.audit.result import Result, scores_parquet
from bench.leaderboard import formats
from lmia.metrics.roc import roc_curve
from lmia.metrics.scores import ScoreSet
from lmia.metrics.verdict import Evidence

FEW, THUMBNAIL_PX, CURVES = 8, 112, 3
VERSIONS = (
    *("torch", "diffusers", "transformers", "peft", "safetensors", "numpy", "scipy", "scikit-learn", "pillow", "ray"),
    "reportlab",
)


def summary(result: Result) -> str:
    """The verdict in a few lines of text."""
    return words.summary(result.judgement)


def write(result: Result, folder: Path, command: str | None = None) -> list[Path]:
    """Writes all files of an audit; `command` is the command line that asked for it."""
    folder.mkdir(parents=True, exist_ok=True)
    scores, thumbs = scores_parquet(result), _thumbs(result)
    record = _record(result, scores, thumbs, command)
    repeat = as_yaml(result.plan.audit, folder)
    text = record.to_json().encode()
    files = {
        "scores.parquet": scores,
        "metrics.json": text,
        "audit.yaml": repeat.encode(),
        **render(record, text, list(result.evidence.values()), thumbs, repeat),
    }
    for name, data in {**files, "SHA256SUMS": sums(files).encode()}.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in files]


def render(
    record: AuditRecord, text: bytes, evidence: Sequence[Evidence], thumbs: Mapping[str, bytes], repeat: str
) -> dict[str, bytes]:
    """The report as a page and as a PDF, from what is stored alone.

    Args:
        record: what was concluded.
        text: metrics.json as it is stored.
        evidence: the scores.
        thumbs: small JPEG pictures by id.
        repeat: audit.yaml.
    """
    shown = {name: document.Thumb(data, name.partition("/")[2]) for name, data in thumbs.items()}
    found = words.document(record, _curves(record, evidence), shown, repeat, hashlib.sha256(text).hexdigest())
    return {"report.html": html(found).encode(), "report.pdf": pdf.render(found)}


def html(found: document.Document) -> str:
    """A document as one HTML file: no network, no scripts, every text escaped."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(resources.files("bench.audit").joinpath("page/report.html").read_text("utf-8"))
    return page.render(report=found)


def _record(result: Result, scores: bytes, thumbs: Mapping[str, bytes], command: str | None) -> AuditRecord:
    from lmia import __version__

    versions = {"lmia": __version__, "python": platform.python_version()}
    for name in VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return AuditRecord(
        **dict(result.judgement),
        left_out=result.plan.left_out,
        failed=result.failed,
        request=result.plan.audit,
        size_px=result.plan.size,
        materials=result.materials,
        scores_sha256=hashlib.sha256(scores).hexdigest(),
        shown={name: hashlib.sha256(data).hexdigest() for name, data in thumbs.items()},
        provenance=Provenance(
            made_at=result.made_at,
            command=command,
            revision=result.revision,
            versions=versions,
            numerics=result.numerics,
        ),
    )


def _curves(record: AuditRecord, evidence: Sequence[Evidence]) -> list[document.Line]:
    by_name = {one.attack: one for one in evidence}
    lines = []
    for attack in record.attacks[:CURVES]:
        auc = formats.number(None if attack.auc is None else attack.auc.value)
        lines.append(_curve(f"{attack.attack.replace('_', ' ')}, AUC {auc}", by_name[attack.attack].target))
    first = by_name[record.attacks[0].attack]
    if first.base is not None:
        lines.append(_curve(f"model before tuning, {first.attack.replace('_', ' ')}", first.base, dashed=True))
    return lines


def _curve(label: str, scores: ScoreSet, dashed: bool = False) -> document.Line:
    curve = roc_curve(scores.scores, scores.member)
    fpr = np.append(0.0, curve.false_positives / scores.num_nonmembers)
    tpr = np.append(0.0, curve.true_positives / scores.num_members)
    return document.Line(label, tuple(fpr.tolist()), tuple(tpr.tolist()), dashed)


def _thumbs(result: Result) -> dict[str, bytes]:
    """The pictures that are asked for, as small JPEGs by id."""
    from PIL import Image

    asked = result.plan.audit.pictures
    if asked == "none":
        return {}
    chosen: list[str] = []
    for label in (MEMBERS, NONMEMBERS):
        own = sorted(i for i in result.pictures.ids if i.startswith(f"{label}/"))
        chosen += own if asked == "all" else own[:FEW]
    found = {}
    for name, image in zip(chosen, result.pictures.select(chosen).images(THUMBNAIL_PX), strict=True):
        sink = io.BytesIO()
        Image.fromarray(image).save(sink, "JPEG", quality=80)
        found[name] = sink.getvalue()
    return found
