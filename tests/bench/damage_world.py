"""A campaign without Ray: real planning, pictures, rows and leaderboard; models and scores are instant arithmetic."""

import hashlib
import json

import numpy as np

from bench.artifacts.artifact import slice_of
from bench.cli import main
from bench.jobs import Payload, Stage, job
from bench.stages.scores import to_parquet

BENCHMARK = """
name: damage
title: Nothing is tuned and nothing is scored; rows are judged
data: {kind: population, size: 32}
people: {A: 3, B: 3, C: 3, aux: 3, query: 3}
trained_photos: 1
held_photos: 1
slice: 4
controls: []
default: {base: random, attack: loss, epochs: 1}
grid:
  - {name: default}
"""


def _jobs(stage):
    def jobs(refs, done):
        return [
            job(stage(), f"{artifact} {number}", Payload((ref,), number), work=1)
            for artifact, ref in refs
            for number in range(artifact.num_slices)
            if number not in done(ref)
        ]

    return jobs


def _make_model(payload, bench, report):
    ref = payload.ref
    trained_on = sorted(bench.pictures(ref.inputs["pictures"]).ids) if "pictures" in ref.inputs else None
    files = {"unet/config.json": b"{}", "unet/weights.safetensors": ref.address.encode() * 50}
    bench.store.put_slice(ref, 0, files, facts={"trained_on": trained_on}, numerics="cpu", cost={"seconds": 1.0})


def _make_scores(payload, bench, report):
    ref, number = payload.ref, payload.number
    bench.layers(ref.inputs["model"])  # through the cache
    ids = bench.pictures(ref.inputs["query"]).ids
    mine = [ids[n] for n in slice_of(len(ids), ref.num_slices, number)]
    values = [int(hashlib.sha256(f"{ref.address}{i}".encode()).hexdigest()[:8], 16) / 2**32 for i in mine]
    bench.store.put_slice(ref, number, {f"{number:05d}.parquet": to_parquet(mine, np.array(values))}, numerics="cpu")


MODEL = Stage("tests.bench.damage_world:MODEL", "model", "driver", Payload, _jobs(lambda: MODEL), _make_model)
SCORES = Stage("tests.bench.damage_world:SCORES", "scores", "driver", Payload, _jobs(lambda: SCORES), _make_scores)


class Campaign:
    """The campaign on a store, as a person runs it."""

    def __init__(self, folder, capsys):
        self.folder, self.store, self.capsys = folder, folder / "store", capsys
        (folder / "damage.yaml").write_text(BENCHMARK)

    def run(self):
        how = ["--store", str(self.store), "--no-track", "--runtime", f"cache={self.folder / 'cache'}"]
        status = main(["run", str(self.folder / "damage.yaml"), *how])
        return status, self.capsys.readouterr().err

    def rows(self):
        """Exit status, rows without cost and provenance, and what was said."""
        status = main(["leaderboard", "damage", "--store", str(self.store), "--format", "json"])
        said = self.capsys.readouterr()
        if status:
            return status, None, said.err
        rows = json.loads(said.out)
        for row in rows:
            del row["cost"], row["provenance"]
        return status, rows, said.err
