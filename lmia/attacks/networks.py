"""Training a small classifier on records, as several attacks do: deterministic by record, resumable bit for bit."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmia.attacks import Learned, Progress
from lmia.seeds import seed_of
from lmia.training import Training

if TYPE_CHECKING:
    import torch

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


def margins(network: "torch.nn.Module", x: "torch.Tensor") -> np.ndarray:
    """The logit margins of a network of two classes, class 1 minus class 0: float64 [B]."""
    import torch

    with torch.inference_mode():
        logits = network(x).double()
    return (logits[:, 1] - logits[:, 0]).cpu().numpy()


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
    starts = list(range(0, len(keys), batch))
    if len(keys) - starts[-1] == 1 and len(starts) > 1:
        starts.pop()
    ends = [*starts[1:], len(keys)]
    loss_sum = torch.zeros((), dtype=torch.float64)

    @lru_cache(maxsize=1)
    def rows(epoch: int) -> np.ndarray:
        return order(seed, epoch, keys)

    def loss(step: int) -> Any:
        epoch, index = divmod(step, len(starts))
        chosen = rows(epoch)[starts[index] : ends[index]]
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=dtype == "bfloat16"):
            logits = network(inputs(chosen))
        value = cross_entropy(logits.float(), target[torch.from_numpy(chosen).to(device)])
        if index == 0:
            loss_sum.zero_()
        loss_sum.add_(float(value.detach()) * len(chosen))
        return value

    network.train()
    parameters = dict(network.named_parameters())
    training = Training(
        loss,
        parameters,
        # The fused kernel computes the same update in one pass over memory instead of several.
        torch.optim.Adam(parameters.values(), lr=lr, fused=True),
        identity=[task, list(keys), list(labels), lr, batch, epochs, seed, dtype],
        folder=partial,
        carried={**dict(network.named_buffers()), "loss_sum": loss_sum},
    )
    training.restore()
    for epoch in range(training.step // len(starts), epochs):
        training.run((epoch + 1) * len(starts), save_every_s=save_every_s)
        on_progress({"epoch": epoch + 1, "epochs": epochs, "train_loss": float(loss_sum) / len(keys)})
    return {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
