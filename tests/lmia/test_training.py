"""The one training loop: wherever it is interrupted or its progress damaged, it ends with the same bits."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from lmia.checked import is_kept, keep, kept, read_tensors, write_tensors
from lmia.seeds import rng
from lmia.training import PROGRESS, Training

STEPS = 6
ROOT = Path(__file__).resolve().parents[2]


class Killed(Exception):
    pass


def training(folder, *, seed=0, die_at=None, scaler=None):
    """A small network with buffers, a moving average and a running loss; (training, all its tensors)."""
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    with torch.no_grad():
        for name, value in network.named_parameters():
            value.copy_(torch.from_numpy(rng(seed, name).standard_normal(tuple(value.shape), dtype=np.float32)))
    parameters = dict(network.named_parameters())
    average = {f"average.{name}": value.detach().clone() for name, value in parameters.items()}
    total = torch.zeros((), dtype=torch.float64)

    def loss(step):
        if step == die_at:
            raise Killed
        value = (
            network(torch.from_numpy(rng(seed, "x", step).standard_normal((5, 3), dtype=np.float32))).square().mean()
        )
        total.add_(value.detach())
        return value

    def follow():
        torch._foreach_lerp_(list(average.values()), [value.detach() for value in parameters.values()], 0.1)

    carried = {**dict(network.named_buffers()), **average, "total": total}
    made = Training(
        loss,
        parameters,
        torch.optim.AdamW(parameters.values(), lr=0.0, fused=True),
        identity=["test", seed],
        folder=folder,
        lr=lambda step: 0.01 * (step + 1),
        max_grad_norm=1.0,
        carried=carried,
        after_step=follow,
        scaler=scaler,
    )
    return made, {**parameters, **carried}


def finish(folder, **options):
    made, tensors = training(folder, **options)
    resumed = made.restore()
    begun = made.step
    made.run(STEPS, save_every_s=0.0)
    return {name: value.detach().clone() for name, value in tensors.items()}, made.step - begun, resumed


@pytest.fixture(scope="module")
def whole():
    return finish(None)[0]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("stop", range(STEPS + 1))
def test_interrupted_after_any_step_it_ends_with_the_same_bits(tmp_path, whole, stop):
    made, _ = training(tmp_path, die_at=stop)
    try:
        made.run(STEPS, save_every_s=0.0)
    except Killed:
        assert made.step == stop
    rest, steps, resumed = finish(tmp_path)
    assert same(rest, whole) and steps == STEPS - stop and resumed == (stop > 0)


def test_killed_it_goes_on_to_the_same_bits(tmp_path):
    """SIGKILL at any moment: in a step, or while the progress is being written."""
    code = "import sys; from pathlib import Path; from tests.lmia import test_training as t\n"
    code += "made, _ = t.training(Path(sys.argv[1])); made.restore(); print('ready', flush=True)\n"
    code += "made.run(10**6, save_every_s=0.0)"
    child = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    time.sleep(0.3)
    child.kill()
    child.wait()
    child.stdout.close()
    made, tensors = training(tmp_path)
    assert made.restore() and made.step > 0
    straight, expected = training(None)
    straight.run(made.step)
    assert same(tensors, expected)
    made.run(made.step + 2)
    straight.run(straight.step + 2)
    assert same(tensors, expected)


def test_saves_that_lie_behind_are_caught_up_with(tmp_path, whole):
    made, _ = training(tmp_path, die_at=5)
    made.run(2, save_every_s=0.0)
    with pytest.raises(Killed):
        made.run(STEPS)
    rest, steps, _ = finish(tmp_path)
    assert same(rest, whole) and steps == 4


def test_any_flipped_byte_is_seen_and_the_training_starts_again(tmp_path, whole, caplog):
    finish(tmp_path)
    file = tmp_path / PROGRESS
    good = file.read_bytes()
    draw = np.random.default_rng(0)
    header = int.from_bytes(good[:8], "little")
    places = [0, 7, 8, *draw.integers(8, 8 + header, 40), *draw.integers(8 + header, len(good), 40), len(good) - 1]
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 1 << draw.integers(8)
        file.write_bytes(bad)
        read = read_tensors(file)
        assert read is None or (place < 8 + header and _equal(read, good, tmp_path)), place
    assert str(file) in caplog.text
    for content in (good[: len(good) // 2], b"", b"torn"):
        file.write_bytes(content)
        rest, steps, resumed = finish(tmp_path)
        assert same(rest, whole) and steps == STEPS and not resumed


def _equal(read, good, folder):
    """A flip that is no damage, such as in the header's padding: all that is read is as it was."""
    (folder / "good").write_bytes(good)
    tensors, state = read_tensors(folder / "good")
    return same(read[0], tensors) and read[1] == state


def test_progress_of_another_training_is_discarded(tmp_path):
    finish(tmp_path, seed=1)
    _, steps, resumed = finish(tmp_path)
    assert steps == STEPS and not resumed
    made, _ = training(tmp_path)
    assert not made.restore(lambda step, state: step != STEPS) and made.step == 0


def test_state_seconds_and_reports(tmp_path):
    made, _ = training(tmp_path)
    made.state["loss"] = 0.5
    steps = []
    made.run(3, save_every_s=0.0, on_progress=lambda: steps.append(made.step), report_every_s=0.0)
    assert steps == [1, 2, 3]
    made.run(5, on_progress=lambda: steps.append(made.step), report_every_s=3600)
    assert steps == [1, 2, 3, 5]  # a curve ends where the training does
    again, _ = training(tmp_path)
    assert again.restore() and again.state == {"loss": 0.5} and again.seconds > 0


def test_the_scale_of_the_loss_is_part_of_the_progress(tmp_path):
    def scaler():
        return torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)

    one, _, _ = finish(None, scaler=scaler())
    made, _ = training(tmp_path, die_at=3, scaler=scaler())
    with pytest.raises(Killed):
        made.run(STEPS, save_every_s=0.0)
    other, steps, _ = finish(tmp_path, scaler=scaler())
    assert same(one, other) and steps == 3


@pytest.mark.parametrize("damaged", ["a", "b/c", "../folder.sha256"])
def test_a_folder_that_is_damaged_is_made_again(tmp_path, caplog, damaged):
    folder = tmp_path / "folder"

    def write(path):
        (path / "b").mkdir(parents=True)
        (path / "a").write_bytes(b"12")
        (path / "b" / "c").write_bytes(b"34")

    assert not is_kept(folder) and not caplog.text
    keep(folder, write, "one")
    assert is_kept(folder, "one")
    assert kept(folder, lambda path: pytest.fail("it is there"), "one") == folder
    (folder / damaged).write_bytes(b"13")
    assert not is_kept(folder, "one") and str(folder) in caplog.text
    kept(folder, write, "one")
    assert is_kept(folder, "one") and not is_kept(folder, "another")
    (folder / "more").write_bytes(b"")
    assert not is_kept(folder, "one")


def test_a_crash_leaves_the_old_file(tmp_path, monkeypatch):
    write_tensors(tmp_path / "x", {"a": torch.ones(2)}, {"n": 1})

    def full(*args):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_tensors(tmp_path / "x", {"a": torch.zeros(2)}, {"n": 2})
    tensors, state = read_tensors(tmp_path / "x")
    assert state == {"n": 1} and torch.equal(tensors["a"], torch.ones(2))
    assert read_tensors(tmp_path / "y") is None
