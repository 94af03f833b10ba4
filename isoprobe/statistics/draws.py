"""Draw random numbers that belong to a sample, not to the moment it was drawn.

Each number is a function of (seed, stream name, sample index, position) alone, by the counter-based
generator Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).
So batch size, order, resumption and the number of processes change nothing.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))

Words = tuple["NDArray[np.uint64]", ...]


def normal(seed: int, stream: str, index: np.ndarray, count: int) -> np.ndarray:
    """Draw standard normal numbers for each sample.

    The first k of ``count`` numbers are those that ``count = k`` gives.

    Args:
        seed: any integer.
        stream: name of the use the numbers are put to; streams are independent of each other.
        index: index of each sample in the run, ``(B,)`` integers from 0, in any order.
        count: numbers for each sample.

    Returns:
        Numbers from N(0, 1), ``(B, count)`` float64.
    """
    import torch

    words = _words(seed, stream, index, 2 * count)
    bits = (words[:, 0::2] << _SHIFT | words[:, 1::2]) >> np.uint64(12)
    # 52 bits, so that the half added below is exact and neither 0 nor 1 can come out
    uniform = (bits.astype(np.float64) + 0.5) * 2.0**-52
    drawn: np.ndarray = torch.special.ndtri(torch.from_numpy(uniform)).numpy()
    return drawn


def signs(seed: int, stream: str, index: np.ndarray, count: int) -> np.ndarray:
    """Draw random signs for each sample.

    Args:
        seed: any integer.
        stream: name of the use the numbers are put to; streams are independent of each other.
        index: index of each sample in the run, ``(B,)`` integers from 0, in any order.
        count: signs for each sample.

    Returns:
        Numbers -1 and +1 with equal chance, ``(B, count)`` float64.
    """
    words = _words(seed, stream, index, -(-count // 32))
    octets = words.astype("<u4").view(np.uint8)
    bits = np.unpackbits(octets, axis=1, count=count, bitorder="little")
    return bits.astype(np.float64) * 2.0 - 1.0


def _words(seed: int, stream: str, index: np.ndarray, count: int) -> NDArray[np.uint64]:
    """Return ``count`` words of 32 random bits to each sample, ``(B, count)``."""
    blocks = -(-count // 4)
    sample = np.asarray(index).astype(np.uint64)[:, None]
    block = np.arange(blocks, dtype=np.uint64)[None, :]
    counter = np.broadcast_arrays(sample & _LOW, sample >> _SHIFT, block, np.uint64(0))
    words = np.stack(_philox(tuple(counter), _key(seed, stream)), axis=-1)
    return words.reshape(len(sample), 4 * blocks)[:, :count]


def _key(seed: int, stream: str) -> tuple[int, int]:
    """Return seed and stream name hashed into the generator's key of 2 x 32 bits."""
    digest = hashlib.sha256(f"{seed}:{stream}".encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def _philox(counter: Words, key: tuple[int, int]) -> Words:
    """Return the encrypted counters of four 32-bit words, each held in a uint64 array."""
    c0, c1, c2, c3 = counter
    k0, k1 = np.uint64(key[0]), np.uint64(key[1])
    for _ in range(_ROUNDS):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            product1 >> _SHIFT ^ c1 ^ k0,
            product1 & _LOW,
            product0 >> _SHIFT ^ c3 ^ k1,
            product0 & _LOW,
        )
        k0, k1 = k0 + _WEYL[0] & _LOW, k1 + _WEYL[1] & _LOW
    return c0, c1, c2, c3
