"""Inference requests and answers in the Open Inference Protocol v2, JSON: all that a load generator needs of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from loadtests.samples import Samples
from loadtests.scoring import Fate

LABEL = "label"
SLO_HEADER = "x-slo-latency-ms"
VARIANT_HEADER = "x-variant"
JSON_HEADERS = {"content-type": "application/json"}

_FATES = {200: Fate.ANSWERED, 429: Fate.REFUSED, 503: Fate.REFUSED, 504: Fate.EXPIRED}


def infer_path(family: str, variant: str | None = None) -> str:
    """Where to send a request: to the family, or pinned to one variant."""
    return f"/v2/models/{family}/versions/{variant}/infer" if variant else f"/v2/models/{family}/infer"


def infer_body(samples: Samples, row: int) -> bytes:
    """The body of a request with one sample, which asks for nothing but the label."""
    inputs = [
        {
            "name": name,
            "shape": [1, *values.shape[1:]],
            "datatype": samples.datatypes[name],
            "data": _json_values(values[row]),
        }
        for name, values in samples.inputs.items()
    ]
    return orjson.dumps({"inputs": inputs, "outputs": [{"name": LABEL}]})


def fate_of(status: int) -> Fate:
    """What a status code says became of the request."""
    return _FATES.get(status, Fate.FAILED)


def label_of(body: bytes, index: Mapping[str, int]) -> int:
    """The answered label's index. Raises `ValueError` where the body is not an answer with one known label."""
    try:
        outputs = orjson.loads(body)["outputs"]
        (output,) = (output for output in outputs if output["name"] == LABEL)
        (label,) = output["data"]
        return index[label]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"expected an answer with one known label, got {body[:120]!r}") from error


def _json_values(row: NDArray[Any] | bytes) -> list[Any]:
    if isinstance(row, bytes):
        return [row.decode()]
    values: list[Any] = np.asarray(row).reshape(-1).tolist()
    return [value.decode() if isinstance(value, bytes) else value for value in values]
