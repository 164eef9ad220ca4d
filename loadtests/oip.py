"""Inference requests and answers in the Open Inference Protocol v2: all that a load generator needs of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from loadtests.outcomes import Fate, Reply
from loadtests.samples import LabelledRows

LABEL = "label"
SLO_HEADER = "x-slo-latency-ms"
ID_HEADER = "x-request-id"
VARIANT_HEADER = "x-variant"
PATH_HEADER = "x-route-path"
TIMING_HEADER = "server-timing"
REASON_HEADER = "x-request-dropped-reason"
TENANT_HEADER = "x-gateway-inference-fairness-id"
JSON_HEADERS = {"content-type": "application/json"}
MOST_IN_JSON = 4096
"""Rows with more numbers are sent raw: a picture of 260x260 is 0.2 MB of bytes, and as text it takes the server longer
to read than to classify."""

LONGEST_REASON = 60
"""Letters of a server's reason that are kept: it may be any server."""

_FATES = {200: Fate.ANSWERED, 429: Fate.REFUSED, 503: Fate.REFUSED, 504: Fate.EXPIRED}


def infer_path(family: str, variant: str | None = None) -> str:
    """Where to send a request: to the family, or pinned to one variant."""
    return f"/v2/models/{family}/versions/{variant}/infer" if variant else f"/v2/models/{family}/infer"


def slo_text(slo_s: float) -> str:
    """The value of `SLO_HEADER`: milliseconds, as exact as they were drawn."""
    return f"{slo_s * 1000.0:.12g}"


def request_line(path: str) -> bytes:
    """How a request to that path begins; headers follow."""
    return f"POST {path} HTTP/1.1\r\n".encode()


def header_lines(headers: Mapping[str, str]) -> bytes:
    """Headers as they are sent."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()


def request_end(body: bytes) -> bytes:
    """The last header, which says how long the body is, and the body."""
    return header_lines({"content-length": str(len(body))}) + b"\r\n" + body


def infer_body(samples: LabelledRows, row: int, outputs: Sequence[str] = (LABEL,)) -> bytes:
    """The body of a request with one sample, by default for nothing but the label; no `outputs` means all of them."""
    inputs = [
        {
            "name": name,
            "shape": [1, *values.shape[1:]],
            "datatype": samples.datatypes[name],
            "data": _json_values(values[row]),
        }
        for name, values in samples.inputs.items()
    ]
    wanted = {"outputs": [{"name": name} for name in outputs]} if outputs else {}
    return orjson.dumps({"inputs": inputs, **wanted})


def infer_message(samples: LabelledRows, row: int) -> tuple[Mapping[str, str], bytes]:
    """The headers and the body of a request with one sample, for nothing but the label; large rows as raw tensors."""
    if max(values[row].size if values.dtype != object else 1 for values in samples.inputs.values()) <= MOST_IN_JSON:
        return JSON_HEADERS, infer_body(samples, row)
    blobs = {name: np.ascontiguousarray(values[row]).tobytes() for name, values in samples.inputs.items()}
    inputs = [
        {
            "name": name,
            "shape": [1, *values.shape[1:]],
            "datatype": samples.datatypes[name],
            "parameters": {"binary_data_size": len(blobs[name])},
        }
        for name, values in samples.inputs.items()
    ]
    head = orjson.dumps({"inputs": inputs, "outputs": [{"name": LABEL}]})
    headers = {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))}
    return headers, b"".join((head, *blobs.values()))


def reply_of(status: int, headers: Mapping[str, str], body: bytes, index_of: Mapping[str, int]) -> Reply:
    """What an answer says; names of headers are in lower case, `index_of` numbers the labels that are known."""
    fate = fate_of(status)
    if fate is not Fate.ANSWERED:
        return Reply(fate, reason=headers.get(REASON_HEADER, "")[:LONGEST_REASON] or f"status {status}")
    try:
        label = label_of(body, index_of)
    except ValueError:
        return Reply(Fate.FAILED, reason="no answer in the body")
    stages = stage_seconds(headers.get(TIMING_HEADER, ""))
    return Reply(
        fate,
        label,
        headers.get(VARIANT_HEADER, "unnamed"),
        stages.get("total", math.nan),
        stages.get("compute", math.nan),
        "," in headers.get(PATH_HEADER, ""),
    )


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


def stage_seconds(server_timing: str) -> dict[str, float]:
    """Seconds by stage of a `Server-Timing` header (`queue;dur=0.1, total;dur=2`, in ms); odd parts are skipped."""
    stages: dict[str, float] = {}
    for part in server_timing.split(","):
        name, _, duration_ms = part.strip().partition(";dur=")
        try:
            stages[name] = float(duration_ms) / 1000.0
        except ValueError:
            continue
    return stages


def _json_values(row: NDArray[Any] | bytes) -> list[Any]:
    if isinstance(row, bytes):
        return [row.decode()]
    values: list[Any] = np.asarray(row).reshape(-1).tolist()
    return [value.decode() if isinstance(value, bytes) else value for value in values]
