"""Where the rows of a load come from: a file of the user's, a model repository, or the gateway itself."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from loadtests import oip
from loadtests.harness.cargo import Message
from loadtests.harness.target import NotLetInError, Served, Target, TargetError
from loadtests.samples import LabelledRows, read_rows
from variants.repository import Repository, RepositoryError

LABEL, LABELS, ONLY = "label", "labels", "x"
UNKNOWN = -2
"""The label of a row of which nobody has said what is right: no answer's."""
MOST_ROWS = 100_000


class RowsError(Exception):
    """No rows can be had from there. The message is one line."""


@dataclass(frozen=True, slots=True)
class Stock:
    """The rows of one family as requests. `label` int64 [m] indexes `labels`, `UNKNOWN` where nobody knows.

    `source` says in a few words where they are from.
    """

    family: str
    messages: tuple[Message, ...]
    labels: tuple[str, ...]
    label: NDArray[np.int64]
    source: str

    @property
    def labelled(self) -> bool:
        """Whether what is right is known of every row."""
        return bool((self.label >= 0).all())


def from_repository(models: Path, served: Served, *, same_revision: bool) -> Stock | None:
    """Rows of the family's active revision in a repository, or with `same_revision` of the served one.

    None where it has no such revision and that was asked for. Raises `RepositoryError`.
    """
    repository = Repository(models)
    if same_revision:
        try:
            folder = repository.open(served.family, served.revision) if served.revision else None
        except RepositoryError:
            folder = None
        if folder is None:
            return None
    else:
        folder = repository.open(served.family)
    revision = folder.manifest.revision
    differs = f", not the one served ({served.revision})" if served.revision not in (None, revision) else ""
    return _stock(read_rows(folder), f"test part of revision {revision}{differs}")


def from_gateway(target: Target, served: Served) -> Stock | None:
    """The labelled rows that the gateway shows on its page; None where it shows us none. Raises `TargetError`."""
    try:
        listed = target.ask(f"/page/samples?family={served.family}")
    except NotLetInError:
        return None
    if listed.status != 200:
        return None
    try:
        names = [str(row[LABEL]) for row in orjson.loads(listed.body)["rows"]]
        labels = tuple(dict.fromkeys(names))
        messages = tuple(_shown(target, served.family, row) for row in range(len(names)))
    except (KeyError, TypeError, ValueError) as error:
        raise TargetError(f"{target.url}/page/samples: cannot be read as rows ({error!r})") from None
    label = np.array([labels.index(name) for name in names], dtype=np.int64)
    return Stock(served.family, messages, labels, label, f"{len(names)} rows of the gateway's page") if names else None


def from_file(path: Path, served: Served) -> Stock:
    """Rows of an .npz (one array for each input, or `x` for the only one) or a .csv (a column for each input).

    `label` has what is right: names, or numbers that index `labels`; rows without are sent all the same. Raises
    `RowsError` naming the file.
    """
    arrays = _read_csv(path) if path.suffix == ".csv" else _read_npz(path)
    if len(served.shapes) == 1 and ONLY in arrays:
        arrays[next(iter(served.shapes))] = arrays.pop(ONLY)
    if missing := served.shapes.keys() - arrays.keys():
        has = ", ".join(sorted(arrays)) or "nothing"
        raise RowsError(f"{path}: has no {min(missing)!r}, which {served.family} takes; it has {has}")
    inputs = {name: _as_taken(path, name, arrays[name], served) for name in served.shapes}
    counts = {len(values) for values in inputs.values()}
    if len(counts) != 1 or not 0 < min(counts) <= MOST_ROWS:
        raise RowsError(f"{path}: inputs must have one number of rows, from 1 to {MOST_ROWS:,}, got {sorted(counts)}")
    labels, label = _labels(path, arrays.get(LABEL), arrays.get(LABELS), counts.pop())
    return _stock(LabelledRows(served.family, labels, inputs, served.datatypes, label), path.name)


def _stock(rows: LabelledRows, source: str) -> Stock:
    messages = tuple(Message(*oip.infer_message(rows, row)) for row in range(len(rows)))
    return Stock(rows.family, messages, rows.labels, rows.label, f"{len(rows):,} rows: {source}")


def _shown(target: Target, family: str, row: int) -> Message:
    """One row of the page as a request for nothing but the label."""
    answer = target.ask(f"/page/sample?family={family}&row={row}")
    length = int(answer.headers["inference-header-content-length"])
    head = orjson.loads(answer.body[:length]) | {"outputs": [{"name": oip.LABEL}]}
    packed = orjson.dumps(head)
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(packed))}
    return Message(headers, packed + answer.body[length:])


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise RowsError(f"{path}: holds one array, expected an .npz file (numpy.savez) or a .csv")
        with archive:
            return {name: archive[name] for name in archive.files}
    except RowsError:
        raise
    except OSError as error:
        raise RowsError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # noqa: BLE001 - a damaged archive raises anything from zipfile, zlib or numpy
        raise RowsError(
            f"{path}: cannot be read as .npz of plain arrays: {' '.join(str(error).split())[:160]}"
        ) from None


def _read_csv(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            head, *rows = [row for row in csv.reader(stream) if row]
    except OSError as error:
        raise RowsError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise RowsError(f"{path}: cannot be read as CSV with a heading: {error}") from None
    for number, row in enumerate(rows, start=2):
        if len(row) != len(head):
            raise RowsError(f"{path}: row {number} has {len(row)} fields, the heading {len(head)}")
    return {name: np.array([row[place] for row in rows], dtype=np.str_) for place, name in enumerate(head)}


def _as_taken(path: Path, name: str, values: NDArray[Any], served: Served) -> NDArray[Any]:
    """Values of one input, of the datatype and the shape that the family takes."""
    shape, datatype = served.shapes[name], served.datatypes[name]
    fits = values.ndim == len(shape)
    if not fits or any(want not in (-1, got) for want, got in zip(shape[1:], values.shape[1:], strict=True)):
        raise RowsError(f"{path}: {name!r} is {list(values.shape)}, {served.family} takes {list(shape)}")
    if datatype == "BYTES":
        texts = np.empty(len(values), dtype=object)
        texts[:] = [text if isinstance(text, bytes) else str(text).encode() for text in values.tolist()]
        return texts
    try:
        return values.astype(np.dtype(datatype.lower().replace("fp", "float")))
    except (TypeError, ValueError) as error:
        raise RowsError(f"{path}: {name!r} does not become {datatype}: {error}") from None


def _labels(
    path: Path, label: NDArray[Any] | None, names: NDArray[Any] | None, rows: int
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    if label is None:
        return (), np.full(rows, UNKNOWN, dtype=np.int64)
    if label.shape != (rows,):
        raise RowsError(f"{path}: {LABEL!r} is {list(label.shape)}, expected one for each of {rows} rows")
    if label.dtype.kind in "iu":
        known = tuple(_text(name) for name in np.atleast_1d(names).tolist()) if names is not None else ()
        known = known or tuple(str(number) for number in range(int(label.max()) + 1))
        if not (label.min() >= 0 and label.max() < len(known)):
            raise RowsError(
                f"{path}: {LABEL!r} has values {label.min()} to {label.max()}, {LABELS!r} {len(known)} names"
            )
        return known, label.astype(np.int64)
    texts = [_text(name) for name in label.tolist()]
    known = tuple(dict.fromkeys(texts))
    place: Mapping[str, int] = {name: index for index, name in enumerate(known)}
    return known, np.array([place[text] for text in texts], dtype=np.int64)


def _text(name: object) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
