"""What models did, in the shape of Triton's statistics extension, whose names are JSON's and gRPC's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Duration:
    """How often something happened and for how long altogether."""

    count: int = 0
    total_s: float = 0.0


@dataclass(slots=True)
class ModelCounters:
    """What one version of a model did since the server started.

    `inference_count` counts rows, `execution_count` batches. `success` and `fail` count requests, from receipt to
    answer; `queue` and `compute` count the successful ones. `batches` maps a batch's rows to the runs of that size.
    `last_inference_s` is the Unix time of the last inference, 0 before the first.
    """

    name: str
    version: str
    inference_count: int = 0
    execution_count: int = 0
    last_inference_s: float = 0.0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute: Duration = field(default_factory=Duration)
    batches: dict[int, Duration] = field(default_factory=dict)


def statistics(counters: Iterable[ModelCounters]) -> dict[str, Any]:
    """The body of `GET /v2/models[/{m}[/versions/{v}]]/stats`.

    Decoding and encoding are not measured apart: they count as nothing.
    """
    return {"model_stats": [_model(model) for model in counters]}


def _model(model: ModelCounters) -> dict[str, object]:
    untimed = Duration(model.success.count)
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": round(model.last_inference_s * 1e3),
        "inference_count": model.inference_count,
        "execution_count": model.execution_count,
        "inference_stats": {
            "success": _duration(model.success),
            "fail": _duration(model.fail),
            "queue": _duration(model.queue),
            "compute_input": _duration(untimed),
            "compute_infer": _duration(model.compute),
            "compute_output": _duration(untimed),
            "cache_hit": _duration(Duration()),
            "cache_miss": _duration(Duration()),
        },
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": _duration(Duration(runs.count)),
                "compute_infer": _duration(runs),
                "compute_output": _duration(Duration(runs.count)),
            }
            for rows, runs in sorted(model.batches.items())
        ],
    }


def _duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": round(duration.total_s * 1e9)}
