"""Peer (a): no gateway. Starlette and orjson on uvicorn, onnxruntime right in the event loop, one request at a time.

Answers the same JSON as the gateway and checks what it must not pass to the model; has no batching, no routing, no
deadlines and no metrics. Run: `uvicorn loadtests.peers.bare:app` with the variables of `loadtests.peers.model`.
"""

from __future__ import annotations

import numpy as np
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from loadtests.peers.model import open_peer_model
from variants.preparation import LOGITS, InputError

model = open_peer_model()
tensor = model.family.inputs[0]
labels = model.family.labels


def answer(content: object, status: int = 200) -> Response:
    """JSON, numpy arrays included."""
    return Response(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), status, media_type="application/json")


async def infer(request: Request) -> Response:
    """Decode, check, run, encode."""
    try:
        (given,) = orjson.loads(await request.body())["inputs"]
        if given["name"] != tensor.name or given["datatype"] != tensor.datatype:
            raise ValueError(f"expected input {tensor.name} of {tensor.datatype}")
        values = np.asarray(given["data"], dtype=np.float32).reshape(given["shape"])
        rows = model.preparer.prepare({tensor.name: values}).values
    except (InputError, KeyError, TypeError, ValueError) as error:
        return answer({"error": str(error)}, 400)
    logits = model.session.run(model.preparer.collate(rows))[LOGITS]
    best = model.preparer.decode(logits, model.variant.temperature)
    count, classes = best.probabilities.shape
    outputs = [
        {"name": "label", "datatype": "BYTES", "shape": [count], "data": [labels[i] for i in best.labels]},
        {"name": "confidence", "datatype": "FP32", "shape": [count], "data": best.confidences},
        {"name": "probabilities", "datatype": "FP32", "shape": [count, classes], "data": best.probabilities.ravel()},
    ]
    return answer({"model_name": model.family.name, "model_version": model.variant.name, "outputs": outputs})


async def ready(request: Request) -> Response:
    """Loaded, as soon as anything is answered."""
    return Response()


app = Starlette(
    routes=[
        Route(f"/v2/models/{model.family.name}/infer", infer, methods=["POST"]),
        Route("/v2/health/ready", ready),
    ]
)
