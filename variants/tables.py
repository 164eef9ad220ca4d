"""Lookup tables in memory: each once in a process, for all sessions that look up in it, until the last one is gone.

onnxruntime uses an initializer that it is given (`SessionOptions.add_initializer`) as it lies in memory. Tables are
known by their SHA-256, so families that were made from one base share them too.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from typing import Any
from weakref import WeakValueDictionary

import onnxruntime
from numpy.typing import NDArray

from variants.pages import KEPT
from variants.shared_parts import LookupTable, TableFile


class HeldTable:
    """A table in memory: `value` for onnxruntime, over the elements, which live as long as this object."""

    __slots__ = ("__weakref__", "_elements", "size_bytes", "value")

    def __init__(self, file: TableFile) -> None:
        self._elements = _elements(file)
        self.value = onnxruntime.OrtValue.ortvalue_from_numpy(self._elements)
        self.size_bytes = self._elements.nbytes


_held: WeakValueDictionary[tuple[str, str, tuple[int, ...]], HeldTable] = WeakValueDictionary()
_lock = threading.Lock()


def hold_tables(files: Sequence[TableFile]) -> dict[str, HeldTable]:
    """Return tables by the name of their initializer; those that are in memory already are not read again.

    Raises `OSError` where a file cannot be read, and `ValueError` naming it where it is not what the manifest says.
    """
    found: dict[str, HeldTable] = {}
    # One lock for all: what two threads want at once is read once.
    with _lock:
        for file in files:
            key = _key(file.table)
            held = _held.get(key)
            if held is None:
                held = _held[key] = HeldTable(file)
            found[file.table.name] = held
    return found


def tables_bytes() -> int:
    """Bytes of all tables in memory."""
    with _lock:
        return sum(table.size_bytes for table in _held.values())


def _key(table: LookupTable) -> tuple[str, str, tuple[int, ...]]:
    return table.sha256, table.datatype, table.shape


def _elements(file: TableFile) -> NDArray[Any]:
    """Read a file into pages of its own, which nobody else has until nobody needs them any more."""
    path, table = file
    elements = KEPT.take(table.size_bytes)
    pages = elements.data
    with path.open("rb", buffering=0) as stream:
        size_bytes = stream.readinto(pages) or 0
        while size_bytes and (more := stream.readinto(pages[size_bytes:])):
            size_bytes += more
        size_bytes += len(stream.read(1))
    if size_bytes != table.size_bytes:
        raise ValueError(f"{path}: has not the {table.size_bytes} bytes that the manifest says")
    # What is checked is what is used: nobody can change these bytes any more.
    if hashlib.sha256(pages).hexdigest() != table.sha256:
        raise ValueError(f"{path}: has the wrong SHA-256")
    return elements.view(table.datatype).reshape(table.shape)
