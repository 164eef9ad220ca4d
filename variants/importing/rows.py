"""The rows that an imported model is measured on, read from an .npz file.

| array | what it holds |
|---|---|
| `x`, or the name of the model's input | rows as requests bring them, numbers [n, ...] |
| `label` (optional) | the true labels, integers [n], indices into the model's outputs |
| `labels` (optional) | the names of the labels, text [k]; else they are called 0, 1, 2 ... |
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from variants.interface import Datatype
from variants.spec import BuildError

ROWS, LABEL, LABELS = "x", "label", "labels"
MINIMUM_ROWS = 40
"""A quarter to calibrate quantization on, a quarter to calibrate confidence on, the rest to measure on."""

_DATATYPES: dict[str, Datatype] = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float32": "FP32",
}


@dataclass(frozen=True, slots=True)
class SampleFile:
    """Rows [n, ...] of the `datatype` that requests are to send, true labels int64 [n] and names, where given."""

    path: Path
    rows: NDArray[Any]
    datatype: Datatype
    label: NDArray[np.int64] | None
    names: tuple[str, ...] | None

    def check_labels(self, classes: int) -> None:
        """Hold labels and names against the number of the model's outputs. Raises `BuildError`."""
        if self.names is not None and len(self.names) != classes:
            raise BuildError(f"{self.path}: {LABELS!r} has {len(self.names)} names, the model gives {classes} outputs")
        if self.label is not None and not (self.label.min() >= 0 and self.label.max() < classes):
            raise BuildError(
                f"{self.path}: {LABEL!r} has values {self.label.min()} to {self.label.max()}, "
                f"the model's {classes} outputs need 0 to {classes - 1}"
            )


def read_samples(path: Path, input_name: str) -> SampleFile:
    """Read rows for a model with that input. Raises `BuildError`: no such file, no rows, wrong arrays in it."""
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise BuildError(f"{path}: holds one array, expected an .npz file with {ROWS!r} (np.savez)")
        with archive:
            arrays = {name: archive[name] for name in archive.files}
    except BuildError:
        raise
    except OSError as error:
        raise BuildError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:  # numpy's own text advises to unpickle what it is given
        raise BuildError(f"{path}: is no .npz of plain arrays (numpy.savez), or holds Python objects") from error
    except Exception as error:  # zipfile and numpy raise unrelated types for damaged files
        raise BuildError(f"{path}: cannot be read as .npz: {type(error).__name__}: {error}") from error
    if unknown := sorted(arrays.keys() - {ROWS, LABEL, LABELS, input_name}):
        expected = ", ".join(dict.fromkeys((input_name, ROWS, LABEL, LABELS)))
        raise BuildError(f"{path}: array {unknown[0]!r} is unknown, expected {expected}")
    rows = arrays.get(input_name, arrays.get(ROWS))
    if rows is None:
        raise BuildError(
            f"{path}: has no rows: expected an array {' or '.join(map(repr, dict.fromkeys((ROWS, input_name))))}"
        )
    rows, datatype = _numbers(path, rows)
    return SampleFile(path, rows, datatype, _label(path, arrays.get(LABEL), len(rows)), _names(path, arrays))


def _numbers(path: Path, rows: NDArray[Any]) -> tuple[NDArray[Any], Datatype]:
    if rows.dtype == np.float64:
        rows = rows.astype(np.float32)
    datatype = _DATATYPES.get(rows.dtype.name)
    if datatype is None:
        raise BuildError(f"{path}: rows are {rows.dtype}, expected numbers of at most 64 bits")
    if rows.ndim == 0 or len(rows) < MINIMUM_ROWS:
        count = 0 if rows.ndim == 0 else len(rows)
        raise BuildError(f"{path}: has {count} rows, expected at least {MINIMUM_ROWS}")
    with np.errstate(over="ignore"):
        as_float = rows.astype(np.float32)
    if not np.isfinite(as_float).all():
        raise BuildError(f"{path}: rows hold values that are not finite 32-bit floats")
    if rows.dtype.kind in "iu" and not np.array_equal(as_float.astype(rows.dtype), rows):
        raise BuildError(f"{path}: rows hold integers beyond 2^24, which a 32-bit float cannot carry")
    return rows, datatype


def _label(path: Path, label: NDArray[Any] | None, rows: int) -> NDArray[np.int64] | None:
    if label is None:
        return None
    if label.shape != (rows,) or label.dtype.kind not in "biu":
        raise BuildError(
            f"{path}: {LABEL!r} is {label.dtype} {list(label.shape)}, expected integers [{rows}], one for each row"
        )
    return label.astype(np.int64)


def _names(path: Path, arrays: dict[str, NDArray[Any]]) -> tuple[str, ...] | None:
    names = arrays.get(LABELS)
    if names is None:
        return None
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise BuildError(
            f"{path}: {LABELS!r} is {names.dtype} {list(names.shape)}, expected the names of the labels as text; "
            f"true labels of rows belong into {LABEL!r}"
        )
    try:
        texts = tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names.tolist())
    except UnicodeDecodeError as error:
        raise BuildError(f"{path}: {LABELS!r} holds bytes that are not UTF-8") from error
    if len(set(texts)) < len(texts):
        raise BuildError(f"{path}: {LABELS!r} names two labels alike")
    return texts
