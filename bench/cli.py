"""The `lmia` command. Exit status: 0 all there; 1 some cell failed; 2 a mistake in the request; 3 infrastructure."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from bench.store import InfrastructureError, SpecChanged, Store
from lmia import __version__
from lmia.specs import RequestError

OK, FAILED, MISTAKE, INFRASTRUCTURE = 0, 1, 2, 3


class _Parser(argparse.ArgumentParser):
    """Names the nearest command or option when one is mistyped."""

    def error(self, message: str) -> Any:
        raise RequestError(f"{message} (see {self.prog} --help)")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; mistakes and failures become one line on standard error and an exit status."""
    try:
        args = parser().parse_args(arguments)
        return args.run(args)
    except RequestError as error:
        print(f"lmia: {error}", file=sys.stderr)  # noqa: T201
        return MISTAKE
    except (InfrastructureError, SpecChanged) as error:
        print(f"lmia: {error}", file=sys.stderr)  # noqa: T201
        return INFRASTRUCTURE if isinstance(error, InfrastructureError) else MISTAKE
    except KeyboardInterrupt:
        print("lmia: interrupted; the same command goes on from here", file=sys.stderr)  # noqa: T201
        return INFRASTRUCTURE
    except BrokenPipeError:
        return OK


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = _Parser(prog="lmia", description="Does a fine-tuned image model leak the pictures it was tuned on?")
    top.add_argument("--version", action="version", version=f"lmia {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        command.add_argument(
            "--store",
            default=os.environ.get("LMIA_STORE", "./store"),
            metavar="URI",
            help="folder or s3://... (LMIA_STORE, else ./store)",
        )
        return command

    command = add("run", _run, "make what is missing of a benchmark, write its rows, update MLflow and leaderboard")
    _benchmark(command)
    _running(command)
    command.add_argument("--no-track", action="store_true", help="leave MLflow alone")
    command = add("plan", _plan, "show cells, jobs and artifacts: asked for, unique, already there; run nothing")
    _benchmark(command)
    command.add_argument("--format", choices=("table", "json"), default="table")
    command = add("status", _status, "what is done, running, failed and given up on a store")
    command.add_argument("--format", choices=("table", "json"), default="table")
    command = add("leaderboard", _leaderboard, "render a campaign's rows")
    command.add_argument("preset", nargs="?", help="the campaign; may be left out when the store has only one")
    command.add_argument("--format", choices=("table", "json", "csv", "md", "html", "figures"), default="table")
    command.add_argument("--out", type=Path, help="file (figures: folder) to write")
    command = add("ui", _ui, "MLflow's UI on the store's database, on 127.0.0.1")
    command.add_argument("--port", type=int, default=5000)
    command = add("evaluate", _evaluate, "every metric for any file of member, score")
    from bench.evaluate import add_arguments

    add_arguments(command)
    command = add("audit", _audit, "was this set of pictures used to tune this model?")
    command.add_argument("--model", help="diffusers folder, hub id, LoRA adapter, or a single .safetensors checkpoint")
    command.add_argument("--base", help="the model before tuning: makes the base control and calibration possible")
    command.add_argument("--generated", metavar="DIR", help="pictures drawn by a model that one cannot hold")
    command.add_argument("--members", metavar="DIR", required=True, help="pictures that may have been used")
    command.add_argument("--nonmembers", metavar="DIR", required=True, help="pictures of the same kind that were not")
    command.add_argument("--shadow", metavar="DIR", help="further people of the same kind, to tune a shadow model on")
    command.add_argument("--auxiliary", metavar="DIR", help="pictures of others, for the generated-set classifier")
    command.add_argument("--attacks", metavar="NAME,...", help="default: all that access and inputs allow")
    command.add_argument("--caption", help="caption of pictures that have none")
    command.add_argument("--prompt", help="what the model is asked to draw; default: the pictures' captions")
    command.add_argument("--fpr", type=float, help="false positive rate of the picture level (default .01)")
    command.add_argument(
        "--random-split", action="store_true", help="vouch that the sets are a random split of one pool"
    )
    command.add_argument("--skip-unreadable", action="store_true", help="leave out pictures that cannot be read")
    command.add_argument("--set", action="append", default=[], metavar="A.B=C", help="any other setting of the audit")
    command.add_argument("--out", type=Path, default=Path("audit"), help="folder of scores, metrics and report")
    _running(command)
    command = add("pretrain", _pretrain, "remake the embedded base model")
    command.add_argument("--out", type=Path, required=True, help="folder of the finished model")
    command.add_argument("--work", type=Path, required=True, help="folder of progress; the same command goes on")
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change the recipe")
    command = add("pull", _pull, "fetch a model from the hub and pin it by revision")
    command.add_argument("repository", help="OWNER/NAME or OWNER/NAME@REVISION")
    command = add("attacks", _attacks, "the attacks, with access, cost and paper")
    command.add_argument("--format", choices=("table", "json"), default="table")
    add("presets", _presets, "the benchmarks that come with lmia")
    return top


def _benchmark(command: argparse.ArgumentParser) -> None:
    command.add_argument("preset", metavar="PRESET|FILE", help="a preset's name or a YAML file")
    command.add_argument("--set", action="append", default=[], metavar="A.B=C", help="override a setting")


def _running(command: argparse.ArgumentParser) -> None:
    command.add_argument("--address", help="Ray cluster to join (RAY_ADDRESS); none starts one on this machine")
    command.add_argument(
        "--runtime", action="append", default=[], metavar="KEY=VALUE", help="how to run: device, workers, ..."
    )
    command.add_argument("--retry", action="store_true", help="try jobs again that were given up")


def _run(args: argparse.Namespace) -> int:
    from bench import campaign
    from bench.cells import load
    from bench.progress import Progress, clock
    from bench.tracking import CampaignTracker

    benchmark = load(args.preset, args.set)
    runtime = _runtime(args)
    asked = campaign.questions(benchmark, _tell)
    store = Store(args.store)
    campaign.record(benchmark, asked, args.set, store)
    tracker = None if args.no_track else CampaignTracker(benchmark.name, asked, store, _tell)
    progress = Progress(runtime, os.cpu_count() or 1)

    def observe(event: dict[str, Any]) -> None:
        progress(event)
        if tracker:
            tracker.observe(event)

    _tell(f"{benchmark.name}: {len(asked)} rows; store {store.uri}")
    outcome = campaign.run(asked, store, runtime, observe, retry=args.retry)
    failed = campaign.note_failures(benchmark.name, asked, outcome, store)
    for key in outcome.repaired:
        _tell(f"damaged and remade: {key}")
    page = campaign.write_leaderboard(benchmark.name, store)
    if tracker:
        tracker.finish(page)
    sys.stdout.write(_rendered(benchmark.name, store, "table"))
    for address, why in failed.items():
        title = next(q.cell.title for q in asked if q.row.address == address)
        _tell(f"failed: {title} ({address}): {why}")
    made = f"{outcome.made} jobs done" if outcome.made else "nothing was missing"
    where = page or f"{store.uri}/leaderboards"
    _tell(f"{made} in {clock(outcome.seconds)}; leaderboard: {where}; `lmia ui` opens MLflow")
    return FAILED if failed else OK


def _runtime(args: argparse.Namespace) -> Any:
    from pydantic import ValidationError

    from bench.config import override
    from bench.workbench import Runtime
    from lmia.specs import explain

    settings: dict[str, Any] = {"address": args.address}
    for text in args.runtime:
        override(settings, text, "workers=2", "--runtime")
    try:
        return Runtime(**settings)
    except ValidationError as error:
        raise explain(error, Runtime, "--runtime") from None


def _plan(args: argparse.Namespace) -> int:
    import json

    from bench import campaign
    from bench.cells import load

    benchmark = load(args.preset, args.set)
    asked = campaign.questions(benchmark, _tell)
    lines, nfe = campaign.plan(asked, Store(args.store))
    if args.format == "json":
        value = {
            "name": benchmark.name,
            "cells": [{"cell": q.row.address, "role": q.cell.role, "title": q.cell.title} for q in asked],
            "artifacts": [line.__dict__ for line in lines],
            "scoring_evaluations": nfe,
        }
        sys.stdout.write(json.dumps(value, indent=1) + "\n")
        return OK
    roles: dict[str, int] = {}
    for q in asked:
        roles[q.cell.role] = roles.get(q.cell.role, 0) + 1
    text = [
        f"{benchmark.name}: {len(asked)} rows ({', '.join(f'{n} {role}' for role, n in sorted(roles.items()))})",
        "",
    ]
    for q in asked:
        text.append(f"  {q.cell.role:9s} {q.cell.title}{'  [confounded]' if q.cell.flags else ''}")
    head = f"  {'artifacts':10s}{'a script per cell':>19s}{'each once':>11s}{'there':>7s}{'jobs':>6s}"
    text += ["", f"{head}{'work, per cell':>16s}{'work left':>12s}"]
    for line in lines:
        text.append(
            f"  {line.kind:10s}{line.naive:19,d}{line.unique:11,d}{line.there:7,d}{line.jobs:6,d}"
            f"{line.naive_work:16,.0f}{line.work:12,.0f}"
        )
    text += ["", "  work is in picture passes through the model at work (fine-tuned, sampled, trained or scored with)"]
    if nfe["asked"] > nfe["shared"]:
        text.append(
            f"  scoring: {nfe['asked']:,d} U-Net evaluations asked for, {nfe['shared']:,d} spent, since attacks on the "
            f"same pictures share them ({nfe['asked'] / nfe['shared']:.1f} times fewer)"
        )
    sys.stdout.write("\n".join(text) + "\n")
    return OK


def _status(args: argparse.Namespace) -> int:
    from bench.status import show

    return show(Store(args.store), args.format)


def _leaderboard(args: argparse.Namespace) -> int:
    from bench import campaign

    store = Store(args.store)
    names = campaign.campaign_names(store)
    if args.preset is None and len(names) != 1:
        raise RequestError(f"which campaign? On the store {store.uri} there are: {', '.join(names) or 'none'}")
    name = args.preset or names[0]
    name = Path(name).stem if name.endswith((".yaml", ".yml")) else name
    if args.out is None and args.format == "figures":
        raise RequestError("--format figures needs --out FOLDER")
    sys.stdout.write(_rendered(name, store, args.format, args.out))
    return OK


def _rendered(name: str, store: Store, form: str, out: Path | None = None) -> str:
    import shutil

    from bench import campaign
    from bench.leaderboard.render import render

    rows, sides, about = campaign.answers(name, store)
    width = shutil.get_terminal_size((160, 40)).columns
    done = render(rows, sides, about, form, out, width=max(120, width), color=sys.stdout.isatty())
    if isinstance(done, str):
        return done if done.endswith("\n") else done + "\n"
    return "".join(f"{path}\n" for path in done)


def _ui(args: argparse.Namespace) -> int:
    from bench.campaign import campaign_names
    from bench.tracking import ui, ui_command, ui_url

    store = Store(args.store)
    ui_command(store.uri, args.port)  # says what is missing before MLflow is imported
    for name in campaign_names(store):
        _tell(f"{name}: {ui_url(name, store.uri, args.port)}")
    return ui(store.uri, port=args.port) or OK


def _evaluate(args: argparse.Namespace) -> int:
    from bench.evaluate import run

    return run(args)


def _audit(args: argparse.Namespace) -> int:
    from bench.audit import report
    from bench.audit.plan import plan
    from bench.audit.request import Audit
    from bench.audit.result import result
    from bench.config import method_spec, override
    from bench.driver import Driver, revision
    from bench.progress import Progress, clock

    names = ("model", "base", "generated", "members", "nonmembers", "shadow", "auxiliary", "caption", "prompt", "fpr")
    raw: dict[str, Any] = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    raw |= {"random_split": args.random_split, "skip_unreadable": args.skip_unreadable}
    if args.attacks is not None:
        raw["attacks"] = [name.strip() for name in args.attacks.split(",") if name.strip()]
    for text in args.set:
        override(raw, text, "settings.loss.t=200")
    audit, runtime = method_spec(Audit, raw, "audit"), _runtime(args)
    planned = plan(audit, _tell)
    _tell(f"attacks: {', '.join(line.attack for line in planned.lines)}")
    for name, why in planned.left_out.items():
        _tell(f"left out: {name}: {why}")
    store = Store(args.store)
    planned.try_model(store)
    progress = Progress(runtime, os.cpu_count() or 1)
    driver = Driver(store, runtime, observer=progress, revision=revision())
    outcome = driver.make(planned.artifacts(), retry=args.retry)
    try:
        found = result(planned, store, outcome.failed)
    except RequestError as error:
        _tell(f"failed: {error}")
        return FAILED
    paths = report.write(found, args.out)
    sys.stdout.write(report.summary(found))
    for name, why in found.failed.items():
        _tell(f"failed: {name}: {why}")
    _tell(f"{outcome.made} jobs done in {clock(outcome.seconds)}; {', '.join(map(str, paths))}")
    return FAILED if found.failed else OK


def _pretrain(args: argparse.Namespace) -> int:
    import json

    from bench.config import method_spec, override
    from lmia.embedded.pretrain import pretrain
    from lmia.embedded.recipe import PretrainSpec

    raw: dict[str, Any] = {}
    for text in args.set:
        override(raw, text, "unet_steps=1000")
    spec = method_spec(PretrainSpec, raw, "pretrain")
    figures = pretrain(spec, args.out, args.work, lambda report: _tell(json.dumps(report)))
    sys.stdout.write(json.dumps(figures, indent=1, default=str) + "\n")
    return OK


def _pull(args: argparse.Namespace) -> int:
    from lmia.models.model import fetch_from_hub

    repository, _, revision = args.repository.partition("@")
    if not revision:
        from huggingface_hub import HfApi

        try:
            revision = str(HfApi().model_info(repository).sha)
        except Exception as error:
            raise InfrastructureError(f"cannot ask the hub for {repository!r}: {error}") from error
    folder = fetch_from_hub(repository, revision)
    sys.stdout.write(f"{repository}@{revision}\t{folder}\n")
    return OK


def _attacks(args: argparse.Namespace) -> int:
    import json

    from lmia.attacks import ATTACKS

    found = [(name, ATTACKS.get(name), ATTACKS.get(name).Spec()) for name in ATTACKS.names()]
    if args.format == "json":
        rows = [
            {
                "attack": name,
                "role": attack.role,
                "access": attack.access,
                "needs": sorted(attack.requires(spec)),
                "nfe": attack.nfe(spec),
                "paper": attack.paper,
            }
            for name, attack, spec in found
        ]
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return OK
    sys.stdout.write(f"{'attack':28s}{'access':15s}{'NFE':>6s}  {'needs':42s}paper\n")
    for name, attack, spec in found:
        label = f"{name} (control)" if attack.role == "control" else name
        needs = ", ".join(sorted(attack.requires(spec)))
        sys.stdout.write(f"{label:28s}{attack.access:15s}{attack.nfe(spec):6d}  {needs:42s}{attack.paper}\n")
    return OK


def _presets(args: argparse.Namespace) -> int:
    from bench.cells import cells, load
    from bench.config import preset_names

    for name in preset_names():
        benchmark = load(name)
        sys.stdout.write(f"{name:12s} {len(cells(benchmark)):4d} rows  {benchmark.title}\n")
    return OK


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
