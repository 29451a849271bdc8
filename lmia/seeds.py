"""Every random draw comes from (spec seed, record id), never from worker, batch or order."""

import hashlib
import json

import numpy as np


def seed_of(*parts: str | int | float) -> int:
    """A stable 63-bit seed from any mix of strings and numbers, equal on every machine and Python version."""
    text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(*parts: str | int | float) -> np.random.Generator:
    """A numpy generator seeded by `seed_of(*parts)`."""
    return np.random.Generator(np.random.PCG64(seed_of(*parts)))
