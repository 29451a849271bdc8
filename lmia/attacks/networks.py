"""Training a small classifier on records, as several attacks do: deterministic by record, resumable bit for bit."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from pydantic import Field

from lmia.attacks import Attack, FitRun, Learned, to_arrays, to_tensors
from lmia.attacks.shadows import Labelled, ShadowTrained
from lmia.seeds import seed_of
from lmia.training import Training

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
SAVE_EVERY_S = 60.0


class TrainedNetwork(Attack):
    """An attack that trains a small classifier; its margin is the score."""

    lr: float = Field(1e-3, gt=0, description="Adam learning rate, constant")
    batch: int = Field(32, ge=2, description="records per step")
    epochs: int = Field(20, ge=1, description="passes over the records; the last state is kept")
    seed: int = Field(0, ge=0, description="attack seed: weights and order")

    def train(
        self,
        network: "torch.nn.Module",
        inputs: "Callable[[np.ndarray], torch.Tensor]",
        keys: Sequence[str],
        labels: Sequence[int],
        run: FitRun,
        *,
        dtype: str = "float32",
    ) -> Learned:
        """Adam on the cross-entropy of two classes; same inputs on the same kind of machine -> same bits.

        A last batch of one joins the one before (it has no batch statistics). Progress is kept in `run.partial` every
        SAVE_EVERY_S seconds and continued from, unless it is of another attack or of other records.

        Args:
            network: maps what `inputs` gives for B records to logits [B, 2]; trained in place, on the device.
            inputs: from row numbers [B] to the network's input on the device.
            keys: one per record, unique; the order of an epoch comes from (seed, epoch, key).
            labels: 0 or 1 per record.
            run: where, and who hears after each epoch of epoch, epochs and train_loss.
            dtype: "bfloat16" runs the products in that type (autocast).

        Returns:
            The network's state on the CPU.
        """
        import torch
        from torch.nn.functional import cross_entropy

        target = torch.tensor(list(labels), device=run.device)
        starts = list(range(0, len(keys), self.batch))
        if len(keys) - starts[-1] == 1 and len(starts) > 1:
            starts.pop()
        ends = [*starts[1:], len(keys)]
        loss_sum = torch.zeros((), dtype=torch.float64)

        @lru_cache(maxsize=1)
        def rows(epoch: int) -> np.ndarray:
            return order(self.seed, epoch, keys)

        def loss(step: int) -> "torch.Tensor":
            epoch, index = divmod(step, len(starts))
            chosen = rows(epoch)[starts[index] : ends[index]]
            with torch.autocast(torch.device(run.device).type, torch.bfloat16, enabled=dtype == "bfloat16"):
                logits = network(inputs(chosen))
            value = cross_entropy(logits.float(), target[torch.from_numpy(chosen).to(run.device)])
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
            torch.optim.Adam(parameters.values(), lr=self.lr, fused=True),
            identity=[self.resolved(), list(keys), list(labels), dtype],
            folder=run.partial,
            carried={**dict(network.named_buffers()), "loss_sum": loss_sum},
        )
        training.restore()
        for epoch in range(training.step // len(starts), self.epochs):
            training.run((epoch + 1) * len(starts), save_every_s=SAVE_EVERY_S)
            run.on_progress({"epoch": epoch + 1, "epochs": self.epochs, "train_loss": float(loss_sum) / len(keys)})
        return {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}


class ShadowNetwork(ShadowTrained, TrainedNetwork):
    """An attack whose network judges what was measured, standardised as it was on the shadow targets."""

    first_layer: ClassVar[str]

    def scales(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """What measurements are standardised by."""
        raise NotImplementedError

    def standardised(self, values: np.ndarray, scales: Mapping[str, np.ndarray]) -> np.ndarray:
        """Inputs [N, C, ...] of the network."""
        raise NotImplementedError

    def network(self, channels: int) -> "torch.nn.Module":
        """The network for inputs of C channels, with random weights."""
        raise NotImplementedError

    def learn(self, data: Labelled, run: FitRun) -> Learned:
        """The network's state and the scales."""
        import torch

        scales = self.scales(data.values)
        x = torch.from_numpy(self.standardised(data.values, scales)).float().to(run.device)
        network = seeded(self.seed, lambda: self.network(x.shape[1])).to(run.device)
        state = self.train(
            network, lambda rows: x[torch.from_numpy(rows).to(x.device)], data.keys, data.labels.tolist(), run
        )
        return {f"network.{name}": tensor for name, tensor in state.items()} | to_tensors(scales)

    def decision(self, learned: Learned, device: str) -> Callable[[np.ndarray], np.ndarray]:
        """The logit margin, member minus non-member."""
        import torch

        prefix = "network."
        state = {name.removeprefix(prefix): value for name, value in learned.items() if name.startswith(prefix)}
        scales = to_arrays({name: value for name, value in learned.items() if not name.startswith(prefix)})
        network = restored(lambda: self.network(state[self.first_layer].shape[1]), state).to(device)

        def decide(values: np.ndarray) -> np.ndarray:
            return margins(network, torch.from_numpy(self.standardised(values, scales)).float().to(device))

        return decide


def seeded(seed: int, build: Callable[[], T]) -> T:
    """What `build` makes with random weights from `seed`; the global random state is left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "weights"))
        return build()


def restored(build: "Callable[[], torch.nn.Module]", state: Learned) -> "torch.nn.Module":
    """What `build` makes with learned weights, in eval mode.

    It is built without storage: random weights that are replaced at once would take longer to draw than to score with.
    """
    import torch

    with torch.device("meta"):
        network = build()
    network.load_state_dict(state, assign=True)
    return network.eval()


def small_stem(network: Any, channels: int) -> "torch.nn.Module":
    """A ResNet of timm's for small pictures or maps: a convolution of 3 x 3 stride 1 first, no max-pool."""
    import torch

    network.conv1 = torch.nn.Conv2d(channels, network.conv1.out_channels, 3, 1, 1, bias=False)
    network.maxpool = torch.nn.Identity()
    return network


def margins(network: "torch.nn.Module", x: "torch.Tensor") -> np.ndarray:
    """The logit margins of a network of two classes, class 1 minus class 0: float64 [B]."""
    import torch

    with torch.inference_mode():
        logits = network(x).double()
    return (logits[:, 1] - logits[:, 0]).cpu().numpy()


def order(seed: int, epoch: int, keys: Sequence[str]) -> np.ndarray:
    """The order of an epoch: records sorted by a hash of (seed, epoch, record)."""
    return np.argsort([seed_of(seed, "order", epoch, key) for key in keys], kind="stable")
