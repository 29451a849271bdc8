"""The `lmia` command: options in, a function of the API called, text out.

Exit status: 0 all there; 1 some cell failed; 2 a mistake in the request; 3 infrastructure, or stopped from outside;
70 a mistake of ours.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter, validators

from bench import api, interrupts
from bench.cli_options import (
    Address,
    Preset,
    Retry,
    RuntimeSettings,
    Set,
    Store,
    StoreUnused,
    TableFormat,
    runtime_of,
    settings_of,
    tell,
)
from lmia import __version__
from lmia.specs import RequestError

OK, FAILED, MISTAKE, INFRASTRUCTURE, OURS = 0, 1, 2, 3, 70

Port = Annotated[int, Parameter(help="on 127.0.0.1", validator=validators.Number(gte=1, lte=65535))]

app = App(
    name="lmia",
    help="Does a fine-tuned image model leak the pictures it was tuned on?",
    version=f"lmia {__version__}",
    help_format="plaintext",
    help_epilogue="Examples:\n\n    lmia run quick\n    lmia leaderboard quick --format md\n    lmia run --help",
    default_parameter=Parameter(negative=()),
    group_commands="Commands",
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
    verbose=False,
    suppress_keyboard_interrupt=False,
)
app.register_install_completion_command(help="Teach the shell to complete commands and options.")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; mistakes and failures become one line on standard error and an exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with interrupts.heard():
        return ended(lambda: _command(arguments))


def _command(arguments: list[str]) -> int:
    if not arguments:
        raise RequestError("which command? (see lmia --help)")
    return app(arguments) or OK


def ended(act: Callable[[], int]) -> int:
    """The exit status of a command, whatever happens in it; what went wrong in one line on standard error."""
    try:
        return act()
    except CycloptsError as error:
        command = " ".join(["lmia", *(error.command_chain or ())])
        return _end(f"{' '.join(str(error).split())} (see {command} --help)", MISTAKE)
    except RequestError as error:
        return _end(error, MISTAKE)
    except KeyboardInterrupt as error:
        by = f" by {error}" if str(error) else ""
        return _end(f"interrupted{by}; the same command goes on from here", INFRASTRUCTURE)
    except BrokenPipeError:
        return OK
    except Exception as error:  # noqa: BLE001 - the last place that can say it in one line
        from bench.store import SpecChanged, is_infrastructure

        if isinstance(error, SpecChanged):
            return _end(error, MISTAKE)
        if is_infrastructure(error):
            return _end(error, INFRASTRUCTURE)
        return _end(f"{_unforeseen(error)}; please report it with {_keep_traceback()}", OURS)


def _unforeseen(error: Exception) -> str:
    said = " ".join(str(error).split())[:300]
    return f"a mistake of ours: {type(error).__name__}{f': {said}' if said else ''}"


def _keep_traceback() -> str:
    """Write the traceback of what is being handled to a file of this user's; what to report it with."""
    import tempfile
    import traceback

    text = f"lmia {__version__}, Python {sys.version}\n\n{traceback.format_exc()}"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="lmia-error-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(text)
    except OSError:
        tell(text)
        return "the traceback above"
    return f"the file {file.name}"


def _end(message: object, status: int) -> int:
    tell(f"lmia: {message}")
    return status


def _say(text: str) -> None:
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def _examples(*lines: str) -> str:
    return "Examples:\n\n" + "\n".join(f"    lmia {line}" for line in lines)


@app.command(
    help_epilogue=_examples(
        "run quick", "run quick --set people.A=16 --runtime workers=2", "run mine.yaml --address auto"
    )
)
def run(
    preset: Preset,
    /,
    *,
    store: Store = api.STORE,
    set: Set = (),
    address: Address = None,
    runtime: RuntimeSettings = (),
    retry: Retry = False,
    no_track: Annotated[bool, Parameter(help="leave MLflow alone", show_default=False)] = False,
) -> int:
    """Make what is missing of a benchmark, write its rows, update MLflow and leaderboard."""
    from bench.progress import clock

    how = runtime_of(runtime, address)
    done = api.run(preset, store=store, overrides=set, runtime=how, retry=retry, track=not no_track, tell=tell)
    _say(_rendered(done.name, store, "table"))
    for why in done.failed.values():
        tell(f"failed: {why}")
    made = f"{done.jobs} jobs done" if done.jobs else "nothing was missing"
    where = done.page or f"{done.store}/leaderboards"
    tell(f"{made} in {clock(done.seconds)}; leaderboard: {where}; `lmia ui` opens MLflow")
    return FAILED if done.failed else OK


@app.command(help_epilogue=_examples("plan quick", "plan holme2025 --set data.root=/data/faces --format json"))
def plan(
    preset: Preset,
    /,
    *,
    store: Store = api.STORE,
    set: Set = (),
    format: TableFormat = "table",
) -> None:
    """Show cells, jobs and artifacts: asked for, unique, already there; run nothing."""
    from bench import listings
    from bench.cells import load
    from bench.store import Store as Opened

    _say(listings.plan(load(preset, set), Opened(store), tell, as_json=format == "json"))


@app.command(help_epilogue=_examples("status", "status --store s3://bucket/lmia --format json"))
def status(*, store: Store = api.STORE, format: TableFormat = "table") -> None:
    """What is done, running, failed and given up on a store."""
    from bench import listings
    from bench.store import Store as Opened

    _say(listings.status(Opened(store), as_json=format == "json"))


@app.command(help_epilogue=_examples("leaderboard quick", "leaderboard --format figures --out figures/"))
def leaderboard(
    preset: Annotated[
        str | None, Parameter(name="PRESET", help="the campaign; may be left out when the store has only one")
    ] = None,
    /,
    *,
    store: Store = api.STORE,
    format: Annotated[
        Literal["table", "json", "csv", "md", "latex", "html", "figures"], Parameter(help="how it is rendered")
    ] = "table",
    out: Annotated[Path | None, Parameter(help="file (figures: folder) to write")] = None,
    rebuild_mlflow: Annotated[
        bool, Parameter(help="write MLflow anew from the rows, as far as it lacks them", show_default=False)
    ] = False,
) -> None:
    """Render a campaign's rows."""
    if rebuild_mlflow:
        preset = api.rebuild_mlflow(preset, store=store, tell=tell)
    _say(_rendered(preset, store, format, out))


def _rendered(name: str | None, store: str, form: str, out: Path | None = None) -> str:
    import shutil

    from bench import campaign
    from bench.leaderboard.render import render
    from bench.store import Store as Opened

    where = Opened(store)
    name = campaign.named(name, where)
    if out is not None and out.is_dir() != (form == "figures") and out.exists():
        raise RequestError(
            f"--out {str(out)!r}: it is a {'folder' if out.is_dir() else 'file'}, and --format {form} "
            f"writes a {'folder' if form == 'figures' else 'file'}"
        )
    if out is None and form == "figures":
        raise RequestError("--format figures needs --out FOLDER")
    rows, attachments, about = campaign.answers(name, where)
    width = shutil.get_terminal_size((160, 40)).columns
    done = render(rows, attachments, about, form, out, width=max(120, width), color=sys.stdout.isatty())
    return done if isinstance(done, str) else "".join(f"{path}\n" for path in done)


@app.command(help_epilogue=_examples("ui", "ui --port 5001"))
def ui(*, store: Store = api.STORE, port: Port = 5000) -> int:
    """MLflow's UI on the store's database, on 127.0.0.1."""
    from bench import tracking
    from bench.record import campaign_names
    from bench.store import Store as Opened

    where = Opened(store)
    tracking.ui_command(where.uri, port)  # says what is missing before MLflow is imported
    for name in campaign_names(where):
        tell(f"{name}: {tracking.ui_url(name, where.uri, port)}")
    return tracking.ui(where.uri, port=port)


@app.command(
    help_epilogue=_examples(
        "evaluate scores.csv --by attack", "evaluate scores.parquet --by attack --against attack=loss"
    )
    + """

Columns: score (numbers) and member (true/false or 0/1); optionally id, identity (people: intervals are then clustered),
split (calibration, report), seed, and any columns to group by."""
)
def evaluate(
    scores: Annotated[str, Parameter(name="SCORES", help="a .parquet, .csv or .tsv file")],
    /,
    *,
    by: Annotated[str, Parameter(help="COL,...: one result per combination of these columns", show_default=False)] = "",
    positive: Annotated[
        str, Parameter(help="COL[=VALUE]: the column that marks members, or the value of a column that does")
    ] = "member",
    lower_is_member: Annotated[
        bool, Parameter(help="scores are distances, lower for members", show_default=False)
    ] = False,
    against: Annotated[
        str | None, Parameter(help="SCORES|COL=VALUE: compare with another file, or with one of the groups of this one")
    ] = None,
    format: TableFormat = "table",
    store: StoreUnused = "",
) -> None:
    """Every metric for any file of member, score."""
    import dataclasses

    import lmia
    from bench.evaluate import render

    columns = [column.strip() for column in by.split(",") if column.strip()]
    found = lmia.evaluate(scores, member=positive, by=columns, lower_is_member=lower_is_member, against=against)
    text = json.dumps(dataclasses.asdict(found), indent=2, allow_nan=False) if format == "json" else render(found)
    _say(text.rstrip("\n"))


app.command(
    "bench.cli_audit:audit",
    name="audit",
    help="Was this set of pictures used to tune this model?",
    help_epilogue=_examples(
        "audit --model tuned/ --base base/ --members suspected/ --nonmembers others/",
        "audit --generated drawn/ --members suspected/ --nonmembers others/ --attacks generated_set_mean",
    ),
)


@app.command(help_epilogue=_examples("pretrain --out base/ --work progress/ --set unet_steps=1000"))
def pretrain(
    *,
    out: Annotated[Path, Parameter(help="folder of the finished model")],
    work: Annotated[Path, Parameter(help="folder of progress; the same command goes on")],
    set: Set = (),
    store: StoreUnused = "",
) -> None:
    """Remake the embedded base model."""
    from bench.config import method_spec
    from lmia.embedded.pretrain import pretrain as remake
    from lmia.embedded.recipe import PretrainSpec

    spec = method_spec(PretrainSpec, settings_of(set, "--set", "unet_steps=1000"), "pretrain")
    figures = remake(spec, out, work, lambda report: tell(json.dumps(report)))
    _say(json.dumps(figures, indent=1, default=str))


@app.command(help_epilogue=_examples("pull stable-diffusion-v1-5/stable-diffusion-v1-5"))
def pull(
    repository: Annotated[str, Parameter(name="REPOSITORY", help="OWNER/NAME or OWNER/NAME@REVISION")],
    /,
    *,
    store: StoreUnused = "",
) -> None:
    """Fetch a model from the hub and pin it by revision."""
    pinned, folder = api.pull(repository)
    _say(f"{pinned}\t{folder}")


@app.command(help_epilogue=_examples("attacks", "attacks --format json"))
def attacks(*, format: TableFormat = "table", store: StoreUnused = "") -> None:
    """The attacks, with access, cost and paper."""
    from bench import listings

    _say(listings.attacks(as_json=format == "json"))


@app.command(help_epilogue=_examples("presets"))
def presets(*, store: StoreUnused = "") -> None:
    """The benchmarks that come with lmia."""
    from bench import listings

    _say(listings.presets())
