"""One bit of one file is wrong: it is found and remade, or the command ends in one line; a row never differs."""

import random

import pytest

from bench.stages import STAGES
from tests.bench import damage_world


@pytest.fixture
def campaign(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(STAGES, "model", damage_world.MODEL)
    monkeypatch.setitem(STAGES, "scores", damage_world.SCORES)
    made = damage_world.Campaign(tmp_path, capsys)
    assert made.run()[0] == 0
    return made


def flip(path, chance):
    data = bytearray(path.read_bytes())
    bit = chance.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def files(*folders):
    return sorted(p for folder in folders for p in folder.rglob("*") if p.is_file() and p.stat().st_size)


@pytest.mark.parametrize("seed", range(4))
def test_a_wrong_bit_anywhere_changes_no_row(campaign, seed):
    chance = random.Random(seed)
    _, expected, _ = campaign.rows()
    for turn in range(50):
        if turn % 2:  # as half of a campaign leaves it
            for kind in ("row", "scores", "model", "pictures")[: chance.randrange(1, 5)]:
                for path in (campaign.store / "manifests").glob(f"{kind}-*"):
                    path.unlink()
        path = chance.choice(files(campaign.store, campaign.folder / "cache"))
        flip(path, chance)
        if not turn % 2:
            status, rows, said = campaign.rows()
            assert status in (0, 3), path
            assert status or rows == expected, path
        status, said = campaign.run()
        assert status in (0, 3) and "Traceback" not in said, f"{path}: {said}"
        if status:
            assert path.name in said
            continue
        assert campaign.rows()[1] == expected, path
