"""A stand-in for the gateway: what a load test needs of one, with answers and refusals that are known.

`tiny` is answered by the large model's rule, or by the variant that is pinned; SLOs under 10 ms are refused. `narrow`
takes some 90 requests a second and refuses the rest. Who brings an `x-key` has to bring the right one. Run by uvicorn
in a process of its own; routes nothing.
"""

from __future__ import annotations

import time

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

WEIGHTS = {"small": (1.0, 0.0, 0.0, 0.0), "large": (1.0, -1.0, 0.5, 2.0)}
ROWS = ([1.0, 0.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0])
NARROW_PER_S, NARROW_BURST = 90.0, 20.0
FAMILIES = ("tiny", "narrow")

_taken = {"at": 0.0, "left": NARROW_BURST}
_seen = {"requests": 0}


def _label(values: list[float], variant: str) -> str:
    return "yes" if sum(w * x for w, x in zip(WEIGHTS[variant], values, strict=True)) > 0 else "no"


def _refused(request: Request) -> Response | None:
    if request.headers.get("x-key", "right") != "right":
        return Response(b'{"error":"who are you?"}', 401)
    if float(request.headers.get("x-slo-latency-ms", "50")) < 10.0:
        return Response(b'{"error":"too late"}', 429, {"x-request-dropped-reason": "deadline_infeasible"})
    return None


def _is_too_much() -> bool:
    now = time.monotonic()
    _taken["left"] = min(NARROW_BURST, _taken["left"] + (now - _taken["at"]) * NARROW_PER_S)
    _taken["at"] = now
    if _taken["left"] < 1.0:
        return True
    _taken["left"] -= 1.0
    return False


async def infer(request: Request) -> Response:
    _seen["requests"] += 1
    if (refused := _refused(request)) is not None:
        return refused
    if request.path_params["family"] == "narrow" and _is_too_much():
        return Response(b'{"error":"full"}', 503, {"x-request-dropped-reason": "backlog_full"})
    variant = request.path_params.get("variant", "large")
    body = await request.body()
    length = request.headers.get("inference-header-content-length")
    (tensor,) = orjson.loads(body[: int(length)] if length else body)["inputs"]
    values = tensor["data"] if "data" in tensor else ROWS[body[-1]]
    output = {"name": "label", "datatype": "BYTES", "shape": [1], "data": [_label(values, variant)]}
    headers = {"x-variant": variant, "server-timing": "queue;dur=0.25, compute;dur=0.5, total;dur=0.75"}
    return Response(orjson.dumps({"outputs": [output]}), headers=headers)


async def metadata(request: Request) -> Response:
    if (refused := _refused(request)) is not None:
        return refused
    family = request.path_params["family"]
    if family not in FAMILIES:
        return Response(b'{"error":"not found"}', 404)
    said = {
        "name": family,
        "versions": list(WEIGHTS),
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "parameters": {"default_slo_ms": 40.0, "revision": "r9"},
    }
    return Response(orjson.dumps(said))


async def server(request: Request) -> Response:
    return _refused(request) or Response(b'{"name":"stand-in","version":"9","commit":"abc1234"}')


async def index(request: Request) -> Response:
    return Response(orjson.dumps([{"name": name, "version": "large", "state": "READY"} for name in FAMILIES]))


async def samples(request: Request) -> Response:
    return Response(orjson.dumps({"rows": [{"label": _label(row, "large")} for row in ROWS]}))


async def sample(request: Request) -> Response:
    described = {"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 1}}
    head = orjson.dumps({"inputs": [described], "outputs": [{"name": "label"}, {"name": "confidence"}]})
    row = int(request.query_params["row"])
    return Response(head + bytes([row]), headers={"inference-header-content-length": str(len(head))})


async def metrics(request: Request) -> Response:
    return Response(b"# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes 1.5e+08\n")


async def seen(request: Request) -> Response:
    """How many requests there have been."""
    return Response(orjson.dumps(_seen))


async def ready(request: Request) -> Response:
    return Response(b"{}")


app = Starlette(
    routes=[
        Route("/v2/models/{family}/infer", infer, methods=["POST"]),
        Route("/v2/models/{family}/versions/{variant}/infer", infer, methods=["POST"]),
        Route("/v2/models/{family}", metadata),
        Route("/v2/repository/index", index, methods=["POST"]),
        Route("/v2/health/ready", ready),
        Route("/v2", server),
        Route("/page/samples", samples),
        Route("/page/sample", sample),
        Route("/metrics", metrics),
        Route("/seen", seen),
    ]
)
