"""What graphs of a revision keep in files of their own, stored once however many of them hold it.

    graphs/<variant>.onnx, graphs/stage.<stage>.onnx     the graphs that have something in such files
    graphs/shared/<sha256>.bin                           elements in C order, little-endian

They are ONNX external data: a graph and its folder can be opened by any tool. `variants.sharing` writes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import Field

from variants.frozen import Frozen

GRAPHS_FOLDER = "graphs"
SHARED_FOLDER = "shared"
"""Below the graphs: external data may not lie outside of the folder of the graph that refers to it."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
TableType = Literal["float16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64"]


class LookupTable(Frozen):
    """An initializer of which a graph only looks up rows, a word embedding say; `sha256` names its file.

    The runtime uses such a table as it lies in memory, so sessions can share it. Weights that are multiplied are packed
    anew for every session.
    """

    name: Annotated[str, Field(min_length=1)]
    sha256: Sha256
    datatype: TableType
    shape: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]

    @property
    def size_bytes(self) -> int:
        """What it takes in memory."""
        return math.prod(self.shape) * np.dtype(self.datatype).itemsize


class SharedParts(Frozen):
    """What one graph refers to: `weights`, which the runtime reads for each session, and `tables`, held once."""

    weights: tuple[Sha256, ...] = ()
    tables: tuple[LookupTable, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of the files, relative to the revision's folder; each once."""
        return tuple(map(shared_file, dict.fromkeys((*self.weights, *(table.sha256 for table in self.tables)))))


NOTHING_SHARED = SharedParts()


class Moved(NamedTuple):
    """Where graph files are now, by where they were; and what those keep in shared files, by where they are now."""

    files: Mapping[str, str]
    graphs: Mapping[str, SharedParts]


NOTHING_MOVED = Moved({}, {})


class TableFile(NamedTuple):
    """A lookup table and where it lies."""

    path: Path
    table: LookupTable


def shared_file(sha256: str) -> str:
    """Return the path of a shared file relative to the revision's folder."""
    return f"{GRAPHS_FOLDER}/{SHARED_FOLDER}/{sha256}.bin"
