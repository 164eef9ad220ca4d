"""Shares of traffic without a dice: a name always falls on the same side, on every replica and after every restart."""

from __future__ import annotations

from hashlib import blake2b


def fraction(name: str, purpose: str) -> float:
    """Where a name falls in [0, 1), evenly spread over names and independently from one purpose to another.

    `purpose` has at most 16 ASCII characters.
    """
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=7, person=purpose.encode()).digest()
    # 56 bits would round up to 1.0 in a float; 53 fit.
    return (int.from_bytes(digest) >> 3) / 2.0**53
