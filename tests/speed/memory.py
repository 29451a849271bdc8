"""Training steps with malloc as it is and with memory kept (bench.engine.worker.keep_memory), in one run.

    python tests/speed/memory.py [--rounds 4] [--steps 10] [--batch 16]

Fresh processes of one thread take turns, since malloc cannot be set back; each trains the embedded model's U-Net and a
ResNet-18 at 64 px. The floor is what the page faults cost: with memory kept there are hardly any left.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"


def steps_of(batch: int) -> dict[str, Callable[[], None]]:
    """One training step of each network, without what stands around it."""
    import timm
    import torch
    from torch.nn.functional import cross_entropy

    from lmia.embedded import embedded
    from lmia.models.load import load_model

    torch.set_num_threads(1)
    model = load_model([embedded("tiny")])
    unet = model.unet.train().requires_grad_(True)
    z0, times = torch.randn(batch, *model.latent_shape()), torch.arange(batch)
    text = model.condition(["a north headshot"] * batch)
    adamw = torch.optim.AdamW(unet.parameters(), fused=True)
    network = timm.create_model("resnet18", num_classes=2).to(memory_format=torch.channels_last)
    pictures, labels = torch.randn(batch, 3, 64, 64), torch.arange(batch) % 2
    adam = torch.optim.Adam(network.parameters(), fused=True)

    def step(optimiser: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return {
        "U-Net": lambda: step(adamw, (unet(z0, times, text, return_dict=False)[0] - z0).square().mean()),
        "ResNet-18": lambda: step(adam, cross_entropy(network(pictures), labels)),
    }


def measure(keep: bool, batch: int, steps: int) -> dict[str, tuple[float, float]]:
    """For each network milliseconds a picture and page faults a step."""
    if keep:
        from bench.engine.worker import keep_memory

        keep_memory()
    found = {}
    for name, step in steps_of(batch).items():
        step()
        step()
        faults, begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        for _ in range(steps):
            step()
        seconds = time.perf_counter() - begun
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        found[name] = (1000 * seconds / steps / batch, faults / steps)
    return found


def main() -> None:
    """Turns of both, their medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--one", choices=("as it is", "kept"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one == "kept", args.batch, args.steps)))
        return
    turns: dict[str, list[dict]] = {"as it is": [], "kept": []}
    for _ in range(args.rounds):
        for way, found in turns.items():
            command = [sys.executable, __file__, "--one", way, "--steps", str(args.steps), "--batch", str(args.batch)]
            found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    for network in turns["kept"][0]:
        spent = {way: statistics.median(f[network][0] for f in found) for way, found in turns.items()}
        faults = {way: statistics.median(f[network][1] for f in found) for way, found in turns.items()}
        ways = ", ".join(f"{way} {spent[way]:.1f} ms a picture, {faults[way]:.0f} faults a step" for way in turns)
        print(f"{network:10s} {ways}: {100 * (1 - spent['kept'] / spent['as it is']):+.1f} % time saved")


if __name__ == "__main__":
    main()
