"""Store weights once and beside the graphs of a revision: large initializers move into files that graphs refer to.

Variants of one network, its exits or its resolutions, hold the same weights many times over. What one graph holds alone
leaves it as well: a runtime maps such files, where it would parse and copy weights in the graph. Lookup tables are
shared by sessions (`variants.tables`), of this family and of others made from its base. What is written is described in
`variants.shared_parts`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from variants.shared_parts import GRAPHS_FOLDER, SHARED_FOLDER, LookupTable, Moved, SharedParts, TableType, shared_file

LEAST_BYTES = 64 * 1024
"""Smaller initializers are not worth a reference."""
PAGE_BYTES = 4096
"""Tensors in one file begin at pages, so that the runtime can map them."""

_DATA_FIELDS = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")
_TABLE_TYPES: Mapping[int, TableType] = {
    helper.np_dtype_to_tensor_dtype(np.dtype(name)): name for name in get_args(TableType)
}


class _Place(NamedTuple):
    """A tensor in a shared file."""

    sha256: str
    offset: int
    size_bytes: int


@dataclass(slots=True)
class _Found:
    """Large initializers by the SHA-256 of their elements: the graphs that hold each, and whether any computes with it.

    `places` has those that were written.
    """

    holders: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    computed_with: set[str] = field(default_factory=set)
    places: dict[str, _Place] = field(default_factory=dict)

    def file_key(self, held: str) -> object:
        """Initializers with the same key go into one file: a table alone, others with those of the same graphs."""
        return frozenset(self.holders[held]) if held in self.computed_with else held


def share_weights(folder: Path, variants: Mapping[str, str], stages: Mapping[str, str]) -> Moved:
    """Move what is large out of graphs. `variants` and `stages` have their files, relative to the folder, by name.

    A graph with nothing large stays where it is, as does one that has external data already. One graph is in memory
    at a time, and once more one of its initializers. Raises `OSError`.
    """
    homes: dict[str, str] = {}
    named = [(f"{GRAPHS_FOLDER}/{name}.onnx", file) for name, file in variants.items()]
    named += [(f"{GRAPHS_FOLDER}/stage.{name}.onnx", file) for name, file in stages.items()]
    taken = {*variants.values(), *stages.values()}
    for home, file in named:
        # A variant may be called as a stage is, or as this folder: then one of the two stays whole.
        if home not in taken:
            homes[file] = home
            taken.add(home)
    found = _Found()
    for file in homes:
        _find(folder, file, found)
    leaving = set().union(*found.holders.values())
    moved = {file: home for file, home in homes.items() if file in leaving}
    graphs = {home: _move(folder, file, home, found) for file, home in moved.items()}
    for left in {(folder / file).parent for file in moved}:
        if not any(left.iterdir()):
            left.rmdir()
    return Moved(moved, graphs)


def _find(folder: Path, file: str, found: _Found) -> None:
    """Take note of what a graph holds that is large."""
    graph = onnx.load(folder / file, load_external_data=False).graph
    for tensor in _large(graph):
        held = hashlib.sha256(_elements(tensor)).hexdigest()
        found.holders[held].add(file)
        if tensor.data_type not in _TABLE_TYPES or not _is_looked_up(tensor.name, graph):
            found.computed_with.add(held)


def _move(folder: Path, file: str, home: str, found: _Found) -> SharedParts:
    """Write a graph to its new place, and of what leaves it whatever is not written yet."""
    model = onnx.load(folder / file, load_external_data=False)
    leaving = [(tensor, hashlib.sha256(_elements(tensor)).hexdigest()) for tensor in _large(model.graph)]
    files: defaultdict[object, dict[str, TensorProto]] = defaultdict(dict)
    for tensor, held in leaving:
        if held not in found.places:
            files[found.file_key(held)][held] = tensor
    for tensors in files.values():
        found.places |= _write(folder, tensors)
    weights: dict[str, None] = {}
    tables: list[LookupTable] = []
    for tensor, held in leaving:
        place = found.places[held]
        _refer(tensor, place)
        if held in found.computed_with:
            weights[place.sha256] = None
        else:
            datatype = _TABLE_TYPES[tensor.data_type]
            tables.append(LookupTable(name=tensor.name, sha256=held, datatype=datatype, shape=tuple(tensor.dims)))
    (folder / home).parent.mkdir(exist_ok=True)
    onnx.save(model, folder / home)
    (folder / file).unlink()
    return SharedParts(weights=tuple(weights), tables=tuple(tables))


def _write(folder: Path, tensors: Mapping[str, TensorProto]) -> dict[str, _Place]:
    """Write tensors into one file, in the order of their hashes, and return their places."""
    sha256, size = hashlib.sha256(), 0
    parts: dict[str, tuple[int, int]] = {}
    unnamed = folder / shared_file("unnamed")
    unnamed.parent.mkdir(parents=True, exist_ok=True)
    with unnamed.open("wb") as stream:
        for held, tensor in sorted(tensors.items()):
            padding, elements = bytes(-size % PAGE_BYTES), _elements(tensor)
            for content in (padding, elements):
                stream.write(content)
                sha256.update(content)
            parts[held] = size + len(padding), len(elements)
            size += len(padding) + len(elements)
    name = sha256.hexdigest()
    unnamed.rename(folder / shared_file(name))
    return {held: _Place(name, *part) for held, part in parts.items()}


def _refer(tensor: TensorProto, place: _Place) -> None:
    """Make a tensor a reference to external data."""
    for name in _DATA_FIELDS:
        tensor.ClearField(name)
    tensor.data_location = TensorProto.EXTERNAL
    location = f"{SHARED_FOLDER}/{Path(shared_file(place.sha256)).name}"
    for key, value in (("location", location), ("offset", str(place.offset)), ("length", str(place.size_bytes))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def _large(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """The initializers that may leave a graph; none where some have left it before."""
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in graph.initializer):
        return
    # What is an input as well may be given by the caller.
    given = {value.name for value in graph.input}
    for tensor in graph.initializer:
        # Elements of other types, of half a byte say, are not external data as they are an array.
        is_plain = bool(tensor.raw_data) or tensor.data_type in _TABLE_TYPES
        if is_plain and tensor.name not in given and _size(tensor) >= LEAST_BYTES:
            yield tensor


def _size(tensor: TensorProto) -> int:
    return len(tensor.raw_data) or numpy_helper.to_array(tensor).nbytes


def _elements(tensor: TensorProto) -> bytes:
    """An initializer's elements as external data has them: in C order, little-endian."""
    return tensor.raw_data or numpy_helper.to_array(tensor).tobytes()


def _is_looked_up(name: str, graph: onnx.GraphProto) -> bool:
    """Whether a graph does nothing with an initializer but gather from it."""
    users = [node for node in _nodes(graph) if name in node.input]
    gathers = all(node.op_type == "Gather" and not node.domain and name not in node.input[1:] for node in users)
    return bool(users) and gathers and all(name != value.name for value in graph.output)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a graph and of the graphs within it."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)
