"""`lmia audit --check`: is a report what its scores, models and pictures say?"""

import base64
import binascii
import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from bench.audit.file import FOLDERS, MODELS, read
from bench.audit.materials import model_record, sha256
from bench.audit.record import AuditRecord, File, Judgement, ModelRecord, SetRecord
from bench.audit.report import render
from bench.audit.request import Audit
from bench.audit.result import judge, scores_of
from bench.driver import revision
from lmia.data.sources.imagefolder import ImageFolder
from lmia.specs import RequestError

State = Literal["agrees", "differs", "cannot be checked"]
NAMED = 5
CLOSE = 1e-6
"""Relative difference up to which two numbers are one: machines round differently."""


@dataclass(frozen=True)
class Checked:
    """One line of the answer."""

    what: str
    state: State
    why: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.what}{f': {self.why}' if self.why else ''}"


def check(report: Path, places: Mapping[str, str | None] | None = None) -> list[Checked]:
    """Everything that a report says which can be computed again.

    Args:
        report: its folder, or a file in it.
        places: where models and sets are now, by field of the request, where they are not where they were.

    Raises:
        RequestError: there is no report, or its metrics.json cannot be read.
    """
    folder = report if report.is_dir() else report.parent
    file = folder / "metrics.json"
    if not report.exists() or not file.is_file():
        raise RequestError(f"--check {str(report)!r}: no metrics.json there; give the folder of an audit's report")
    text = file.read_bytes()
    try:
        record = AuditRecord.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "(whole)"
        raise RequestError(
            f"{file}: not the metrics of an audit of this version of lmia: {where}: {first['msg']}"
        ) from None
    moved = {name: value for name, value in _places(folder).items() if value is not None}
    moved |= {name: value for name, value in (places or {}).items() if value is not None}
    audit = record.request.model_copy(update=moved)
    return [
        *_files(folder),
        *_judgement(folder, record),
        *_rendered(folder, record, text),
        *_given(record, audit, folder),
    ]


def _places(folder: Path) -> dict[str, str]:
    """Where models and sets are by the report's audit.yaml, whose paths hold wherever the report is read."""
    try:
        raw = read(folder / "audit.yaml")
    except RequestError:
        return {}
    return {name: str(raw[name]) for name in (*FOLDERS, *MODELS) if isinstance(raw.get(name), str)}


def _files(folder: Path) -> Iterator[Checked]:
    """The files against SHA256SUMS."""
    file = folder / "SHA256SUMS"
    if not file.is_file():
        yield Checked("files of the report", "cannot be checked", "SHA256SUMS is not there")
        return
    for line in file.read_text("utf-8", "replace").splitlines():
        digest, _, name = line.partition("  ")
        path = folder / Path(name).name
        if not path.is_file():
            yield Checked(name, "cannot be checked", "it is not there")
        elif sha256(path) == digest:
            yield Checked(name, "agrees", "SHA-256 as in SHA256SUMS")
        else:
            yield Checked(name, "differs", "SHA-256 is not that in SHA256SUMS")


def _judgement(folder: Path, record: AuditRecord) -> Iterator[Checked]:
    """The numbers against the scores."""
    file = folder / "scores.parquet"
    if not file.is_file():
        yield Checked("numbers", "cannot be checked", "scores.parquet is not there")
        return
    same = sha256(file) == record.scores_sha256
    yield Checked(
        "scores.parquet", "agrees" if same else "differs", f"SHA-256 {'as' if same else 'not that'} in metrics.json"
    )
    try:
        evidence, blind = scores_of(file.read_bytes(), {one.attack: one.no_base for one in record.attacks})
        _, found = judge(evidence, blind, record.request, {one.attack: one.nfe for one in record.attacks})
    except RequestError as error:
        yield Checked("numbers", "differs", str(error))
        return
    for name in Judgement.model_fields:
        if name == "attacks":
            continue
        odd = list(_differences(getattr(record, name), getattr(found, name), name))
        yield Checked(f"{name}, from the scores", "differs" if odd else "agrees", "; ".join(odd[:NAMED]))
    theirs = {one.attack: one for one in found.attacks}
    for one in record.attacks:
        odd = list(_differences(one, theirs[one.attack], one.attack))
        yield Checked(
            f"numbers of {one.attack}, from the scores", "differs" if odd else "agrees", "; ".join(odd[:NAMED])
        )
    if [one.attack for one in record.attacks] != [one.attack for one in found.attacks]:
        yield Checked("order of the attacks", "differs", "the strongest is not the first")


def _differences(there: object, here: object, where: str) -> Iterator[str]:
    if isinstance(there, BaseModel) and isinstance(here, BaseModel):
        for name in type(there).model_fields:
            yield from _differences(getattr(there, name), getattr(here, name), f"{where}.{name}")
    elif isinstance(there, dict) and isinstance(here, dict):
        for name in sorted({*there, *here}):
            yield from _differences(there.get(name), here.get(name), f"{where}.{name}")
    elif isinstance(there, tuple) and isinstance(here, tuple) and len(there) == len(here):
        for at, (one, other) in enumerate(zip(there, here, strict=True)):
            yield from _differences(one, other, f"{where}.{at}")
    elif isinstance(there, float) and isinstance(here, float):
        if not math.isclose(there, here, rel_tol=CLOSE, abs_tol=CLOSE):
            yield f"{where} is {there:g} in metrics.json, {here:g} by the scores"
    elif there != here:
        yield f"{where} is {_plain(there)} in metrics.json, {_plain(here)} by the scores"


def _plain(value: object) -> str:
    return "nothing" if value is None else "; ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _rendered(folder: Path, record: AuditRecord, text: bytes) -> Iterator[Checked]:
    """The page and the PDF against what metrics.json and the scores would be told as."""
    page, scores, repeat = (folder / name for name in ("report.html", "scores.parquet", "audit.yaml"))
    if not (page.is_file() and scores.is_file() and repeat.is_file()):
        yield Checked("report.html, report.pdf", "cannot be checked", "a file that they are made from is not there")
        return
    try:
        evidence, _ = scores_of(scores.read_bytes(), {one.attack: one.no_base for one in record.attacks})
    except RequestError as error:
        yield Checked("report.html, report.pdf", "cannot be checked", str(error))
        return
    told = page.read_bytes()
    by_digest = {hashlib.sha256(data).hexdigest(): data for data in _embedded(told.decode("utf-8", "replace"))}
    thumbs = {name: by_digest.get(digest, b"") for name, digest in record.shown.items()}
    lost = [name for name, data in thumbs.items() if not data]
    if lost:
        yield Checked("pictures in report.html", "differs", f"{lost[0]} is not the one that metrics.json names")
    again = render(record, text, evidence, thumbs, repeat.read_text("utf-8", "replace"))
    mine = revision() == record.provenance.revision
    for name, data in again.items():
        path = folder / name
        if not path.is_file():
            yield Checked(name, "cannot be checked", "it is not there")
        elif path.read_bytes() == data:
            yield Checked(name, "agrees", "made again from metrics.json and scores.parquet, it is the same")
        elif mine:
            yield Checked(name, "differs", "made again from metrics.json and scores.parquet, it is another")
        else:
            why = f"it was made by lmia {record.provenance.revision}, this is {revision()}, which words it otherwise"
            yield Checked(name, "cannot be checked", why)


def _embedded(page: str) -> Iterator[bytes]:
    for text in re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]*)", page):
        try:
            yield base64.b64decode(text, validate=True)
        except binascii.Error:
            continue


def _given(record: AuditRecord, audit: Audit, folder: Path) -> Iterator[Checked]:
    """Models and pictures against their digests."""
    for what, model, reference in (
        ("model", record.materials.model, audit.model),
        ("base", record.materials.base, audit.base),
    ):
        if model is not None:
            yield _model(what, model, reference or model.reference)
    folders = audit.model_copy().all_folders
    for label, one in record.materials.sets.items():
        yield _set(label, one, audit, folders.get(label, one.folder), record.size_px)


def _model(what: str, model: ModelRecord, reference: str) -> Checked:
    if not model.files:
        return Checked(what, "cannot be checked", f"{reference} has no files")
    try:
        found = model_record(reference)
    except RequestError as error:
        gone = not Path(reference).expanduser().exists()
        why = f"{reference} is not there" if gone else str(error)
        return Checked(what, "cannot be checked" if gone else "differs", why)
    return _compared(what, model.files, {file.name: file.sha256 for file in found.files}, "file")


def _set(label: str, one: SetRecord, audit: Audit, root: str, size: int) -> Checked:
    if not Path(root).expanduser().is_dir():
        return Checked(label, "cannot be checked", f"{root} is not there")
    try:
        entries = {e.name: e for e in ImageFolder.layout(audit.spec_of(label, root, size))[0]}
    except RequestError as error:
        return Checked(label, "differs", str(error))
    for picture in one.pictures:
        entry = entries.get(picture.name)
        if entry is not None and (entry.caption != picture.caption or entry.identity != picture.person):
            return Checked(label, "differs", f"{picture.name} has another caption or person")
    here = {name: sha256(entry.path) for name, entry in entries.items() if name not in one.left_out}
    return _compared(label, one.pictures, here, "picture")


def _compared(what: str, there: tuple[File, ...], here: Mapping[str, str], noun: str) -> Checked:
    wanted = {file.name: file.sha256 for file in there}
    odd = [f"{name} is another" for name, digest in wanted.items() if name in here and here[name] != digest]
    odd += [f"{name} is gone" for name in wanted if name not in here]
    odd += [f"{name} is new" for name in here if name not in wanted]
    if odd:
        more = f" and {len(odd) - NAMED} more" if len(odd) > NAMED else ""
        return Checked(what, "differs", "; ".join(odd[:NAMED]) + more)
    return Checked(what, "agrees", f"SHA-256 of {len(wanted)} {noun}{'s' if len(wanted) != 1 else ''}")
