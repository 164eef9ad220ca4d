"""What the models in memory are thought to take, by file and by family. Read on any thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from service.piecewise import PiecewiseFamily


def taken_by_file(pieces: Mapping[str, PiecewiseFamily]) -> dict[str, int]:
    """What is in memory as `PiecewiseFamily.bytes` calls it, and the bytes that each is thought to take.

    What several share, as lookup tables, is there once.
    """
    return {file: size for piece in list(pieces.values()) for file, size in _taken(piece).items()}


def taken_by_family(pieces: Mapping[str, PiecewiseFamily]) -> dict[str, int]:
    """The bytes of each family that has something in memory; what several share is shared out evenly."""
    taken = {name: _taken(piece) for name, piece in list(pieces.items())}
    users = Counter(file for files in taken.values() for file in files)
    return {name: sum(size // users[file] for file, size in files.items()) for name, files in taken.items() if files}


def _taken(piece: PiecewiseFamily) -> dict[str, int]:
    return {file: piece.bytes[file] for variant in tuple(piece.paths) for file in piece.keys(variant)}
