"""`lmia status`: what the store and the log of attempts say. Manifests alone decide what is made; this only tells."""

import json
import sys
import time
from typing import Any

from bench import attempts
from bench.campaign import campaign_names
from bench.store import Store


def collect(store: Store) -> dict[str, Any]:
    """Campaigns with their rows done and failed, and jobs that are running, failing or given up."""
    there = set(store.index())
    campaigns = {}
    for name in campaign_names(store):
        record = store.read_json(f"campaigns/{name}.json")
        cells = [cell["cell"] for cell in record["cells"]]
        campaigns[name] = {
            "rows": len(cells),
            "done": sum(cell in there for cell in cells),
            "failed": {cell: why for cell, why in record["failed"].items() if cell not in there},
        }
    running, failing, given_up = [], [], []
    for job in store.names("attempts"):
        tries = attempts.of(store, job)
        if not tries or tries[-1].state == "done":
            continue
        bad = attempts.failures(store, job)
        line = {"job": job, "title": tries[-1].title, "attempts": len(bad), "node": tries[-1].node}
        if tries[-1].state == "running":
            running.append({**line, "seconds": round(time.time() - tries[-1].started_at)})
        elif len(bad) >= attempts.MAX_ATTEMPTS:
            given_up.append({**line, "reason": attempts.reason(bad)})
        elif bad:
            failing.append({**line, "reason": attempts.reason(bad)})
    return {"campaigns": campaigns, "running": running, "failing": failing, "given_up": given_up}


def show(store: Store, form: str) -> int:
    """Print it; exit status 0."""
    found = collect(store)
    if form == "json":
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return 0
    lines = [f"store {store.uri}"]
    for name, campaign in found["campaigns"].items():
        lines.append(f"{name}: {campaign['done']} of {campaign['rows']} rows done")
        lines += [f"  failed: {cell}: {why}" for cell, why in campaign["failed"].items()]
    lines += [f"running (or killed) for {j['seconds']} s on {j['node']}: {j['title']}" for j in found["running"]]
    lines += [f"failing: {j['title']}: {j['reason']}" for j in found["failing"]]
    lines += [f"given up: {j['title']}: {j['reason']} (lmia run --retry tries again)" for j in found["given_up"]]
    if len(lines) == 1:
        lines.append("nothing was run on it")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0
