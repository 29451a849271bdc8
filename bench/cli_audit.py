"""`lmia audit`: its options are the fields of the request that people set by themselves; --set reaches all others."""

import inspect
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from bench import api
from bench import cli_options as options
from bench.audit import report
from bench.audit.request import Audit
from bench.audit.result import AuditFailed
from bench.progress import clock

FIELDS = (
    "model", "base", "generated", "members", "nonmembers", "shadow", "auxiliary", "attacks", "caption", "prompt", "fpr",
    "random_split", "skip_unreadable",
)  # fmt: skip


def audit(
    *,
    store: options.Store = api.STORE,
    set: options.Set = (),
    out: Annotated[Path, Parameter(help="folder of scores, metrics and report")] = Path("audit"),
    address: options.Address = None,
    runtime: options.RuntimeSettings = (),
    retry: options.Retry = False,
    **fields: Any,
) -> int:
    """Runs the audit and prints its summary; exit status 1 if an attack, or all, could not be made."""
    request = fields | options.settings_of(set, "--set", "settings.loss.t=200")
    if isinstance(request.get("attacks"), tuple):
        request["attacks"] = [name.strip() for text in request["attacks"] for name in text.split(",") if name.strip()]
    how = options.runtime_of(runtime, address)
    try:
        found = api.audit(**request, out=out, store=store, runtime=how, retry=retry, tell=options.tell)
    except AuditFailed as error:
        options.tell(f"failed: {error}")
        return 1
    sys.stdout.write(report.summary(found))
    for name, why in found.failed.items():
        options.tell(f"failed: {name}: {why}")
    options.tell(f"{found.jobs} jobs done in {clock(found.seconds)}; report: {out / 'report.html'}")
    return 1 if found.failed else 0


def _options() -> inspect.Signature:
    """The command's signature: the request's fields, then how it runs."""
    found = []
    for name in FIELDS:
        field = Audit.model_fields[name]
        kind = field.annotation
        several = "; NAME,... or repeated" if name == "attacks" else ""
        shown = Parameter(help=f"{field.description}{several}", show_default=False)
        default = inspect.Parameter.empty if field.is_required() else field.default
        found.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, shown], default=default)
        )
    mine = [p for p in inspect.signature(audit).parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY]
    return inspect.Signature([*found, *mine])


audit.__signature__ = _options()  # type: ignore[attr-defined]
