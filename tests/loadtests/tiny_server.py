"""A stand-in for the gateway: answers the family `tiny` by the large model's rule, refuses SLOs under 10 ms.

Run by uvicorn in a process of its own; counts nothing, routes nothing.
"""

from __future__ import annotations

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

WEIGHTS = (1.0, -1.0, 0.5, 2.0)


async def infer(request: Request) -> Response:
    if float(request.headers["x-slo-latency-ms"]) < 10.0:
        return Response(b'{"error":"too late"}', 429)
    (tensor,) = orjson.loads(await request.body())["inputs"]
    label = "yes" if sum(w * x for w, x in zip(WEIGHTS, tensor["data"], strict=True)) > 0 else "no"
    body = {"outputs": [{"name": "label", "datatype": "BYTES", "shape": [1], "data": [label]}]}
    headers = {"x-variant": "large", "server-timing": "queue;dur=0.25, compute;dur=0.5, total;dur=0.75"}
    return Response(orjson.dumps(body), headers=headers)


async def metadata(request: Request) -> Response:
    return Response(b'{"name":"tiny"}')


app = Starlette(
    routes=[
        Route("/v2/models/tiny/infer", infer, methods=["POST"]),
        Route("/v2/models/tiny", metadata),
        Route("/v2/health/ready", metadata),
    ]
)
