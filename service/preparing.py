"""The rows of a request made ready for a model, on the event loop or, where they would hold it up, in a thread."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.lazy_preparer import LazyPreparer
from service.loaded_family import LoadedFamily
from service.oip.errors import ProtocolError
from variants.preparation import InputError, Rows

OFF_LOOP_ROWS = 32
OFF_LOOP_TEXT_BYTES = 1024
"""Requests with more rows or text are prepared in a thread: tokenising takes some 0.4 ms for each kilobyte."""


def prepare(loaded: LoadedFamily, inputs: Mapping[str, NDArray[Any]]) -> Rows:
    """The rows of the one input, whose numbers are finite. Raises `ProtocolError` 400 where they do not fit."""
    try:
        return loaded.preparer.prepare(inputs, known_finite=True)
    except InputError as error:
        raise ProtocolError(400, str(error)) from None


async def prepared(loaded: LoadedFamily, inputs: Mapping[str, NDArray[Any]]) -> Rows:
    """As `prepare`, in a thread where it would hold up the event loop."""
    return await asyncio.to_thread(prepare, loaded, inputs) if is_long(loaded, inputs) else prepare(loaded, inputs)


def size_classes(loaded: LoadedFamily, rows: Rows) -> tuple[int, ...]:
    """The size class of each row; what is longer than the largest belongs to that one."""
    sizes = loaded.family.sizes
    last = len(sizes) - 1
    return tuple([min(bisect_left(sizes, tokens), last) for tokens in rows.sizes])


def is_long(loaded: LoadedFamily, inputs: Mapping[str, NDArray[Any]]) -> bool:
    """Whether preparing these rows would hold up the event loop for long, as when a tokenizer is to be opened first."""
    if type(loaded.preparer) is LazyPreparer and not loaded.preparer.is_open:
        return True
    (rows,) = inputs.values()
    if len(rows) > OFF_LOOP_ROWS:
        return True
    return rows.dtype == np.object_ and sum(map(len, rows.ravel())) > OFF_LOOP_TEXT_BYTES
