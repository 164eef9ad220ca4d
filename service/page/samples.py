"""Labelled rows of a family for who tries it in the page: what they are, and each as the request that asks for it."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from service.loaded_family import LoadedFamily
from service.oip.errors import ProtocolError
from variants.repository import RepositoryError

if TYPE_CHECKING:
    from service.gateway import Gateway

ROWS = 24
LONGEST_TEXT = 300
LARGEST_PICTURE = 1024
"""Numbers of a row that is still shown as a picture of grey squares."""
KEPT_FAMILIES = 8


class Samples:
    """The first rows of the test part of each family's served revision, read when first asked for; the last few are
    kept.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._kept: OrderedDict[tuple[str, str], tuple[NDArray[Any], NDArray[np.int64]]] = OrderedDict()

    async def listed(self, family: str) -> bytes:
        """`{"rows": [{"label", "text" | "pixels"}, ...]}` as JSON. Raises `ProtocolError` 404."""
        loaded = self._loaded(family)
        values, labels = await self._rows(loaded)
        names = loaded.manifest.labels
        rows = [{"label": names[label], **_shown(row)} for row, label in zip(values, labels.tolist(), strict=True)]
        return orjson.dumps({"rows": rows}, option=orjson.OPT_SERIALIZE_NUMPY)

    async def request(self, family: str, row: int) -> tuple[bytes, int]:
        """The body of an inference request with that row, raw, and the length of its JSON. Raises `ProtocolError`."""
        loaded = self._loaded(family)
        values, _ = await self._rows(loaded)
        if not 0 <= row < len(values):
            raise ProtocolError(404, f"row: expected 0 to {len(values) - 1}, got {row}")
        (tensor,) = loaded.manifest.inputs
        value = values[row]
        if isinstance(value, bytes):
            blob, shape = len(value).to_bytes(4, "little") + value, [1]
        else:
            blob, shape = np.ascontiguousarray(value).tobytes(), [1, *value.shape]
        described = {
            "name": tensor.name,
            "shape": shape,
            "datatype": tensor.datatype,
            "parameters": {"binary_data_size": len(blob)},
        }
        outputs = [{"name": output.name} for output in loaded.manifest.outputs]
        head = orjson.dumps({"inputs": [described], "outputs": outputs})
        return head + blob, len(head)

    def _loaded(self, family: str) -> LoadedFamily:
        if not self._gateway.settings.page_samples:
            raise ProtocolError(404, "samples are not shown here (`page_samples = false`)")
        return self._gateway.loaded(family)

    async def _rows(self, loaded: LoadedFamily) -> tuple[NDArray[Any], NDArray[np.int64]]:
        key = loaded.name, loaded.family.revision
        found = self._kept.get(key)
        if found is None:
            found = await asyncio.to_thread(self._read, *key)
            self._kept[key] = found
            if len(self._kept) > KEPT_FAMILIES:
                self._kept.popitem(last=False)
        return found

    def _read(self, family: str, revision: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
        try:
            folder = self._gateway.reader.repository.open(family, revision)
            arrays = folder.samples()
        except RepositoryError:
            raise ProtocolError(404, f"{family}: has no samples to show") from None
        (tensor,) = folder.manifest.inputs
        return arrays[tensor.name][:ROWS].copy(), arrays["label"][:ROWS].copy()


def _shown(row: NDArray[Any] | bytes) -> dict[str, Any]:
    """A text as it is; numbers that make a small square picture as grey values 0 to 255; of others nothing."""
    if isinstance(row, bytes):
        return {"text": row.decode(errors="replace")[:LONGEST_TEXT]}
    numbers = np.asarray(row, dtype=np.float64).ravel()
    side = round(numbers.size**0.5)
    if not 16 <= numbers.size <= LARGEST_PICTURE or side * side != numbers.size:
        return {}
    low, high = float(numbers.min()), float(numbers.max())
    grey = np.round((numbers - low) * (255.0 / ((high - low) or 1.0)))
    return {"pixels": grey.astype(np.int64).tolist(), "side": side}
