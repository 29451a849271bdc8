"""What the commands print that only look: a plan, a store's status, the attacks, the presets."""

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from bench import attempts, campaign, leases
from bench.benchmark import Benchmark
from bench.cells import cells, load
from bench.config import preset_names
from bench.forecast import forecast
from bench.record import CampaignRecord, campaign_names
from bench.store import Store


def plan(benchmark: Benchmark, store: Store, tell: Callable[[str], None], *, as_json: bool = False) -> str:
    """Cells, jobs and artifacts of a benchmark: asked for, unique, already there. Makes nothing."""
    asked = campaign.questions(benchmark, tell)
    found = forecast([q.row for q in asked], store)
    alone, shared = found.evaluations_asked, found.evaluations_shared
    if as_json:
        value = {
            "name": benchmark.name,
            "cells": [{"cell": q.row.address, "role": q.cell.role, "title": q.cell.title} for q in asked],
            "artifacts": [asdict(line) for line in found.kinds],
            "scoring_evaluations": {"asked": alone, "shared": shared},
        }
        return json.dumps(value, indent=1)
    roles = Counter(q.cell.role for q in asked)
    text = [
        f"{benchmark.name}: {len(asked)} rows ({', '.join(f'{n} {role}' for role, n in sorted(roles.items()))})",
        "",
        *(f"  {q.cell.role:9s} {q.cell.title}{'  [confounded]' if q.cell.flags else ''}" for q in asked),
        "",
        f"  {'artifacts':10s}{'a script per cell':>19s}{'each once':>11s}{'there':>9s}{'jobs':>9s}"
        f"{'work, per cell':>16s}{'work left':>14s}",
    ]
    for line in found.kinds:
        text.append(
            f"  {line.kind:10s}{line.naive:19,d}{line.unique:11,d}{line.there:9,d}{line.jobs:9,d}"
            f"{line.naive_work:16,.0f}{line.work:14,.0f}"
        )
    text += ["", "  work is in picture passes through the model at work (fine-tuned, sampled, trained or scored with)"]
    if alone > shared:
        text.append(
            f"  scoring: {alone:,d} U-Net evaluations asked for, {shared:,d} spent, since attacks on the "
            f"same pictures share them ({alone / shared:.1f} times fewer)"
        )
    return "\n".join(text)


def status(store: Store, *, as_json: bool = False) -> str:
    """What is done, running, failing and given up on a store."""
    found = _status(store)
    if as_json:
        return json.dumps(found, indent=1)
    lines = [f"store {store.uri}"]
    for name, counted in found["campaigns"].items():
        waiting = f", {counted['waiting']} waiting" if counted["waiting"] else ""
        lines.append(f"{name}: {counted['done']} of {counted['rows']} rows done{waiting}")
        lines += [f"  failed: {cell}: {why}" for cell, why in counted["failed"].items()]
    lines += [f"running on {j['node']} since {j['since']}: {j['title']}" for j in found["running"]]
    lines += [f"interrupted on {j['node']}: {j['title']} (the same run goes on)" for j in found["interrupted"]]
    lines += [f"failing: {j['title']}: {j['reason']}" for j in found["failing"]]
    lines += [f"given up: {j['title']}: {j['reason']}" for j in found["given_up"]]
    if len(lines) == 1:
        lines.append("nothing was run on it")
    return "\n".join(lines)


def _status(store: Store) -> dict[str, Any]:
    """Rows of campaigns (done, waiting, failed) and jobs that are not done, by how they stand, as JSON values."""
    there = set(store.index())
    campaigns = {}
    for name in campaign_names(store):
        record = CampaignRecord.read(name, store)
        addresses = [cell.cell for cell in record.cells]
        done = sum(cell in there for cell in addresses)
        failed = {cell: why for cell, why in record.failed.items() if cell not in there}
        campaigns[name] = {
            "rows": len(addresses),
            "done": done,
            "waiting": len(addresses) - done - len(failed),
            "failed": failed,
        }
    jobs: dict[str, list[dict[str, Any]]] = {"running": [], "interrupted": [], "failing": [], "given_up": []}
    tried = {job: attempts.of(store, job) for job in store.names("attempts")}
    begun = any(one.state == "running" for tries in tried.values() for one in tries)
    living = leases.Watch(store).settled() if begun else set()
    for job, tries in tried.items():
        if not tries or any(one.state == "done" for one in tries):
            continue
        bad, last = attempts.failed(tries), tries[-1]
        line = {"job": job, "title": last.title, "attempts": len(bad), "node": last.node}
        running = [one for one in tries if one.state == "running" and one.run in living]
        if running:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(running[-1].started_at))
            jobs["running"].append({**line, "node": running[-1].node, "since": since})
        elif len(bad) >= attempts.MAX_ATTEMPTS:
            jobs["given_up"].append({**line, "reason": attempts.reason(bad)})
        elif bad:
            jobs["failing"].append({**line, "reason": attempts.reason(bad)})
        else:
            jobs["interrupted"].append(line)
    return {"campaigns": campaigns, **jobs}


def attacks(*, as_json: bool = False) -> str:
    """The attacks with their default settings: access, evaluations per picture, needs and paper."""
    from lmia.attacks import ATTACKS

    found = [ATTACKS.get(name)() for name in ATTACKS.names()]
    if as_json:
        rows = [
            {
                "attack": attack.name,
                "role": attack.role,
                "access": attack.access,
                "needs": sorted(attack.needs),
                "nfe": attack.nfe,
                "paper": attack.paper,
            }
            for attack in found
        ]
        return json.dumps(rows, indent=1)
    lines = [f"{'attack':28s}{'access':15s}{'NFE':>6s}  {'needs':42s}paper"]
    for attack in found:
        label = f"{attack.name} (control)" if attack.role == "control" else attack.name
        needs = ", ".join(sorted(attack.needs))
        lines.append(f"{label:28s}{attack.access:15s}{attack.nfe:6d}  {needs:42s}{attack.paper}")
    return "\n".join(lines)


def presets() -> str:
    """The benchmarks that come with lmia, with their number of rows and title."""
    found = [(name, load(name)) for name in preset_names()]
    return "\n".join(f"{name:12s} {len(cells(made)):4d} rows  {made.title}" for name, made in found)
