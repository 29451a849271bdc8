"""Training a small classifier on records, as several attacks do: deterministic by record, resumable bit for bit."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmia.attacks import Learned, Progress
from lmia.finetune.progress import load_progress, optimizer_tensors, restore_optimizer, save_progress
from lmia.seeds import seed_of

SAVE_EVERY_S = 60.0


def seeded(seed: int, build: Callable[[], Any]) -> Any:
    """What `build` makes with random weights from `seed`; the global random state is left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "weights"))
        return build()


def restored(build: Callable[[], Any], state: Mapping[str, Any]) -> Any:
    """What `build` makes with learned weights, in eval mode.

    It is built without storage: random weights that are replaced at once would take longer to draw than to score with.
    """
    import torch

    with torch.device("meta"):
        network = build()
    network.load_state_dict(dict(state), assign=True)
    return network.eval()


def order(seed: int, epoch: int, keys: Sequence[str]) -> np.ndarray:
    """The order of an epoch: records sorted by a hash of (seed, epoch, record)."""
    return np.argsort([seed_of(seed, "order", epoch, key) for key in keys], kind="stable")


def train_classifier(
    network: Any,
    inputs: Callable[[np.ndarray], Any],
    keys: Sequence[str],
    labels: Sequence[int],
    *,
    lr: float,
    batch: int,
    epochs: int,
    seed: int,
    task: Any,
    dtype: str = "float32",
    device: str = "cpu",
    partial: Path | None = None,
    on_progress: Progress,
    save_every_s: float = SAVE_EVERY_S,
) -> Learned:
    """Adam on the cross-entropy of two classes; same inputs on the same kind of machine -> same bits.

    Args:
        network: maps what `inputs` gives for B records to logits [B, 2]; trained in place.
        inputs: from row numbers [B] to the network's input on the device.
        keys: one per record, unique; the order of an epoch comes from (seed, epoch, key).
        labels: 0 or 1 per record.
        lr: learning rate, constant.
        batch: records per step; a last batch of one joins the one before (it has no batch statistics).
        epochs: passes over the records; the last state is kept.
        seed: of the order.
        task: JSON values that say what is being trained; saved progress of another task is ignored.
        dtype: "bfloat16" runs the products in that type (autocast).
        device: where to train.
        partial: folder of the progress, saved every `save_every_s` seconds and continued from.
        on_progress: called after each epoch with epoch, epochs and train_loss.
        save_every_s: seconds between two savings.

    Returns:
        The network's state on the CPU.
    """
    import torch
    from torch.nn.functional import cross_entropy

    target = torch.tensor(list(labels), device=device)
    network.train()
    # The fused kernel computes the same update in one pass over memory instead of several.
    optimiser = torch.optim.Adam(network.parameters(), lr=lr, fused=True)
    starts = list(range(0, len(keys), batch))
    if len(keys) - starts[-1] == 1 and len(starts) > 1:
        starts.pop()
    mark = str(seed_of(json.dumps([task, list(keys), list(labels), lr, batch, epochs, seed, dtype])))
    done, loss_sum = _restore(partial, mark, network, optimiser)
    saved_at = time.monotonic()
    for epoch in range(done // len(starts), epochs):
        rows = order(seed, epoch, keys)
        for index in range(done % len(starts), len(starts)):
            end = starts[index + 1] if index + 1 < len(starts) else len(keys)
            chosen = rows[starts[index] : end]
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=dtype == "bfloat16"):
                logits = network(inputs(chosen))
            loss = cross_entropy(logits.float(), target[torch.from_numpy(chosen).to(device)])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            loss_sum += float(loss.detach()) * len(chosen)
            done += 1
            if partial is not None and time.monotonic() - saved_at > save_every_s:
                _save(partial, network, optimiser, {"task": mark, "done": done, "loss_sum": loss_sum.hex()})
                saved_at = time.monotonic()
        on_progress({"epoch": epoch + 1, "epochs": epochs, "train_loss": loss_sum / len(keys)})
        loss_sum = 0.0
    return {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}


def _restore(partial: Path | None, mark: str, network: Any, optimiser: Any) -> tuple[int, float]:
    """Puts back the saved network and optimiser of this task: (steps done, sum of the current epoch's losses)."""
    import torch

    saved = load_progress(partial)
    if saved is None or saved[1].get("task") != mark:
        return 0, 0.0
    tensors, state = saved
    prefix = "network."
    network.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
    restore_optimizer(optimiser, dict(network.named_parameters()), tensors)
    for parameter, moments in optimiser.state.items():
        for key, value in moments.items():
            if value.shape == parameter.shape:  # in the parameter's memory layout, as the fused kernel expects
                moments[key] = torch.empty_like(parameter).copy_(value)
    loss_sum = float.fromhex(state["loss_sum"])
    return int(state["done"]), loss_sum


def _save(partial: Path, network: Any, optimiser: Any, state: dict[str, Any]) -> None:
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= optimizer_tensors(optimiser, dict(network.named_parameters()))
    save_progress(partial, tensors, state)
