"""What the models in memory are thought to take, by file and by family. Read on any thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping

from service.lazy_preparer import LazyPreparer
from service.piecewise import PiecewiseFamily


def taken_by_file(pieces: Mapping[str, PiecewiseFamily]) -> dict[str, int]:
    """What is in memory as `PiecewiseFamily.bytes` calls it, and the bytes that each is thought to take.

    What several share, as lookup tables, is there once.
    """
    return {file: size for piece in list(pieces.values()) for file, size in _taken(piece).items()}


def asked_for(pieces: Mapping[str, PiecewiseFamily], taken: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Tokenizers that requests have opened for families with nothing in memory, beside what is `taken`, by family."""
    found = {name: piece.open_tokenizer for name, piece in list(pieces.items()) if not piece.paths}
    return {name: opened for name, opened in found.items() if opened and not opened.keys() <= taken.keys()}


def taken_by_family(pieces: Mapping[str, PiecewiseFamily]) -> dict[str, int]:
    """The bytes of each family that has something in memory; what several share is shared out evenly."""
    taken = {name: _taken(piece) for name, piece in list(pieces.items())}
    users = Counter(file for files in taken.values() for file in files)
    return {name: sum(size // users[file] for file, size in files.items()) for name, files in taken.items() if files}


def unused_tokenizers(
    pieces: Mapping[str, PiecewiseFamily],
    asked_s: Mapping[str, float],
    cold: Container[str],
    too_large: Container[str],
    since_s: float,
) -> list[LazyPreparer]:
    """Tokenizers that requests have opened of families with nothing in memory, that nobody has asked for since.

    `asked_s` says when each family was asked for last, `cold` has those that requests wait for. Those of families that
    are `too_large` to be loaded are unused whenever they were asked for: they take the room of others.
    """
    return [
        piece.preparer
        for name, piece in list(pieces.items())
        if piece.preparer.holds_tokenizer and not piece.paths and name not in cold
        if name in too_large or asked_s.get(name, 0.0) <= since_s
    ]


def _taken(piece: PiecewiseFamily) -> dict[str, int]:
    return {file: piece.bytes[file] for variant in tuple(piece.paths) for file in piece.keys(variant)}
