import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmia.data.pictures import SCHEMA, Pictures
from lmia.specs import RequestError


def random_pictures(count=3, size=8, seed=0, prefix="p"):
    images = np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return Pictures.of([f"{prefix}{i}" for i in range(count)], images, source=["s"] * count, seed=range(count)), images


@given(st.integers(0, 4), st.integers(1, 20), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_png_and_parquet_lose_nothing(count, size, seed):
    pictures, images = random_pictures(count, size, seed)
    back = Pictures.from_parquet([pictures.to_parquet()])
    assert back.table.equals(pictures.table) and back.table.schema.equals(SCHEMA)
    if count:
        assert np.array_equal(back.images(), images)


def test_equal_tables_give_equal_bytes_in_every_process():
    code = (
        "import hashlib, numpy as np; from lmia.data.pictures import Pictures\n"
        "x = np.arange(3 * 8 * 8 * 3).astype(np.uint8).reshape(3, 8, 8, 3)\n"
        "print(hashlib.sha256(Pictures.of(['a', 'b', 'c'], x, source=['s'] * 3).to_parquet()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    images = np.arange(3 * 8 * 8 * 3).astype(np.uint8).reshape(3, 8, 8, 3)
    halves = [
        Pictures.of(["a", "b"], images[:2], source=["s"] * 2),
        Pictures.of(["c"], images[2:], source=["s"]),
    ]
    import hashlib

    here = hashlib.sha256(Pictures.concat(halves).to_parquet()).hexdigest()
    assert there == here + "\n"


def test_selecting_keeps_order_and_columns():
    pictures, images = random_pictures()
    chosen = pictures.select(["p2", "p0"])
    assert chosen.ids == ["p2", "p0"] and chosen.table.column("seed").to_pylist() == [2, 0]
    assert np.array_equal(chosen.images(), images[[2, 0]])
    assert np.array_equal(Pictures.from_parquet([chosen.to_parquet()]).images(), images[[2, 0]])
    assert pictures.with_columns(part=["A"] * 3).table.column("part").to_pylist() == ["A"] * 3
    assert pictures.table.column("part").to_pylist() == [None] * 3
    with pytest.raises(KeyError, match="p7"):
        pictures.select(["p0", "p7"])


def test_sizes():
    small, _ = random_pictures(2, 8, prefix="s")
    large, _ = random_pictures(2, 16, prefix="l")
    mixed = Pictures.concat([small, large])
    with pytest.raises(RequestError, match="2 sizes"):
        mixed.images()
    assert mixed.images(8).shape == (4, 8, 8, 3)
    assert np.array_equal(mixed.images(8)[:2], small.images())


def test_refusals():
    pictures, images = random_pictures()
    with pytest.raises(RequestError, match="'p0' occurs twice"):
        Pictures.concat([pictures, pictures])
    with pytest.raises(ValueError, match="uint8"):
        Pictures.of(["a"], images[:1].astype(float))
    with pytest.raises(ValueError, match="colour"):
        Pictures.of(["a"], images[:1], colour=["red"])
    with pytest.raises(RequestError, match="'a' cannot be read"):
        Pictures.of_encoded(["a"], [b"no picture"]).images()
    with pytest.raises(ValueError, match="read-only"):
        pictures.images()[0] = 0
    assert len(Pictures.concat([])) == 0
