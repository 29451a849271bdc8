"""Pictures per second of all eps attacks in one pass, beside the sum of each alone, with equal scores.

    python tests/speed/attacks.py [--model FOLDER] [--pictures 64] [--device cpu] [--batch 16]

Without --model a random model of the embedded one's size is used: the time does not depend on the weights.
Shadow-trained attacks are fitted on a handful of pictures first; fitting is not timed.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from lmia.attacks import ATTACKS, FitInputs, FitRun, Shadow
from lmia.attacks.scoring import nfe_asked, score_pass
from lmia.data.pictures import Pictures


def pictures(tag: str, count: int, size: int) -> Pictures:
    """Random pictures with captions."""
    rng = np.random.default_rng([ord(letter) for letter in tag])
    return Pictures.of(
        [f"{tag}/{i}" for i in range(count)],
        rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8),
        identity=[f"{tag}/{i}" for i in range(count)],
        caption=[f"a headshot of a person with number {i}" for i in range(count)],
    )


def main() -> None:
    """Measures and prints one JSON object."""
    import torch

    from lmia.embedded.architecture import ArchitectureSpec
    from lmia.embedded.testing import random_model
    from lmia.models.load import load_model

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    if options.device == "cpu":
        torch.set_num_threads(1)
    folder = options.model or random_model(Path(tempfile.mkdtemp()) / "model", 0, ArchitectureSpec())
    model = load_model([folder], device=options.device)
    other = load_model([random_model(Path(tempfile.mkdtemp()) / "base", 1, ArchitectureSpec())], device=options.device)
    query = pictures("query", options.pictures, model.size)
    shadows = (Shadow(model, pictures("in", 8, model.size), pictures("out", 8, model.size)),)
    entries = []
    for name in ATTACKS.names():
        attack = ATTACKS.get(name)()
        if attack.access == "eps":
            entries.append((attack, attack.fit(FitInputs(shadows=shadows, base=other), FitRun(options.device))))

    def timed(chosen: list) -> tuple[dict, float, float, int]:
        wall, busy = time.perf_counter(), time.process_time()
        scored = score_pass(chosen, query, model, base=other, batch=options.batch, device=options.device)
        scores = {attack.name: values for (attack, _), values in zip(chosen, scored.scores, strict=True)}
        return scores, time.perf_counter() - wall, time.process_time() - busy, scored.evaluations

    timed(entries[:1])  # warm up
    alone = {attack.name: timed([(attack, learned)]) for attack, learned in entries}
    together, wall, busy, spent = timed(entries)
    difference = max(
        float(np.abs(together[name] - result[0][name]).max() / np.abs(result[0][name]).max())
        for name, result in alone.items()
    )
    report = {
        "attacks": list(alone),
        "pictures": len(query),
        "evaluations_per_picture": {
            "sum_of_each_alone": sum(result[3] for result in alone.values()) / len(query),
            "declared": nfe_asked(attack for attack, _ in entries),
            "together": spent / len(query),
        },
        "wall_s": {"sum_of_each_alone": sum(result[1] for result in alone.values()), "together": wall},
        "process_s": {"sum_of_each_alone": sum(result[2] for result in alone.values()), "together": busy},
        "pictures_per_s": {
            "sum_of_each_alone": len(query) / sum(result[1] for result in alone.values()),
            "together": len(query) / wall,
        },
        "largest_relative_difference": difference,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
