"""`lmia audit`: its options are the fields of the request that people set by themselves; --set reaches all others."""

import inspect
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from bench import api
from bench import cli_options as options
from bench.audit import report
from bench.audit.file import FOLDERS, MODELS, read
from bench.audit.request import Audit
from bench.audit.result import AuditFailed
from bench.progress import clock
from lmia.specs import RequestError

FIELDS = (
    "model", "base", "generated", "members", "nonmembers", "shadow", "auxiliary", "attacks", "caption", "prompt", "fpr",
    "random_split", "skip_unreadable", "pictures", "credit",
)  # fmt: skip
PLACES = (*FOLDERS, *MODELS)
STATES = {"agrees": "agree", "differs": "differ", "cannot be checked": "cannot be checked"}


def audit(
    *,
    store: options.Store = api.STORE,
    set: options.Set = (),
    out: Annotated[Path, Parameter(help="folder of scores, metrics and report")] = Path("audit"),
    address: options.Address = None,
    runtime: options.RuntimeSettings = (),
    retry: options.Retry = False,
    file: Annotated[
        Path | None, Parameter(help="audit.yaml with the same settings; options override it", show_default=False)
    ] = None,
    check: Annotated[
        Path | None,
        Parameter(help="REPORT: compute digests and numbers of a report again; runs nothing", show_default=False),
    ] = None,
    **fields: Any,
) -> int:
    """Runs the audit and prints its summary; exit status 1 if an attack could not be made, or a check fails."""
    fields = {name: value for name, value in fields.items() if value is not None}
    if check is not None:
        return _check(check, fields)
    below = read(file) if file is not None else {}
    request = below | fields | options.settings_of(set, "--set", "settings.loss.t=200")
    if isinstance(request.get("attacks"), tuple):
        request["attacks"] = [name.strip() for text in request["attacks"] for name in text.split(",") if name.strip()]
    for name in ("members", "nonmembers"):
        if name not in request:
            raise RequestError(f"--{name} is missing: give it, or a file that has it with --file")
    how = options.runtime_of(runtime, address)
    command = shlex.join(["lmia", "audit", *_arguments()])
    try:
        found = api.audit(**request, out=out, store=store, runtime=how, retry=retry, tell=options.tell, command=command)
    except AuditFailed as error:
        options.tell(f"failed: {error}")
        return 1
    sys.stdout.write(report.summary(found))
    for name, why in found.failed.items():
        options.tell(f"failed: {name}: {why}")
    options.tell(f"{found.jobs} jobs done in {clock(found.seconds)}; report: {out / 'report.html'}")
    return 1 if found.failed else 0


def _check(report_: Path, fields: dict[str, Any]) -> int:
    """Says line by line what of a report agrees; exit status 1 if something differs."""
    from bench.audit.check import check

    lines = check(report_, {name: str(fields[name]) for name in PLACES if name in fields})
    for line in lines:
        sys.stdout.write(f"{line}\n")
    counts: Counter[str] = Counter(line.state for line in lines)
    told = ", ".join(f"{counts[state]} {word}" for state, word in STATES.items() if counts[state])
    options.tell(f"{report_}: {told}")
    return 1 if counts["differs"] else 0


def _arguments() -> list[str]:
    """What was typed after `lmia audit`, where this process is that command."""
    given = sys.argv[1:]
    return given[given.index("audit") + 1 :] if "audit" in given else []


def _options() -> inspect.Signature:
    """The command's signature: the request's fields, then how it runs."""
    found = []
    for name in FIELDS:
        field = Audit.model_fields[name]
        kind = field.annotation if field.annotation is None else field.annotation | None
        several = "; NAME,... or repeated" if name == "attacks" else ""
        shown = Parameter(help=f"{field.description}{several}", show_default=False)
        default = None if field.is_required() or kind is bool or field.default == "none" else field.default
        found.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, shown], default=default)
        )
    mine = [p for p in inspect.signature(audit).parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    return inspect.Signature([*found, *mine])


audit.__signature__ = _options()  # type: ignore[attr-defined]
