"""A permutation of any range, named by a key, in constant memory. Pure."""

from __future__ import annotations

_MASK_64 = (1 << 64) - 1
_ROUNDS = 6  # four make a strong pseudo-random permutation (Luby-Rackoff 1988); two for tiny halves


def permuted(value: int, size: int, *, key: int) -> int:
    """Image of `value` under the permutation of range(size) that `key` names, in O(1) memory.

    A Feistel network on the smallest even number of bits that holds `size`, walked along its cycle
    until the value is in range: at most 4 walks on average.
    Source: Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA 2002, methods 2 and 3.
    """
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    while True:
        value = _feistel(value, half_bits, key)
        if value < size:
            return value


def mixed(value: int) -> int:
    """A 64-bit hash. Source: splitmix64 of Steele, Lea and Flood, OOPSLA 2014."""
    value = (value + 0x9E3779B97F4A7C15) & _MASK_64
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _MASK_64
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _MASK_64
    return value ^ value >> 31


def _feistel(value: int, half_bits: int, key: int) -> int:
    mask = (1 << half_bits) - 1
    left, right = value >> half_bits, value & mask
    for number in range(_ROUNDS):
        left, right = right, left ^ (mixed(key + (number << 56) ^ right) & mask)
    return left << half_bits | right
