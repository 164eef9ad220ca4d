"""Run by kserve's own interpreter (see `make clients`): argument 1 is the gateway's URL; prints one line of JSON."""

import asyncio
import json
import sys

import numpy as np
from kserve import (  # type: ignore[import-not-found]  # it lives in an environment of its own
    InferenceRESTClient,
    InferInput,
    InferRequest,
    RESTConfig,
)


async def main(url: str) -> dict[str, object]:
    """Health, a JSON tensor and a raw one."""
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=20))
    answers = []
    for binary in (False, True):
        given = InferInput("x", [2, 4], "FP32")
        given.set_data_from_numpy(np.array([[1, 0, 0, 0], [-1, 0, 0, 0]], np.float32), binary_data=binary)
        response = await client.infer(url, InferRequest(model_name="sign", infer_inputs=[given]), model_name="sign")
        labels = response.outputs[0].as_numpy()
        answers.append([label.decode() if isinstance(label, bytes) else label for label in labels.tolist()])
    return {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model_ready": await client.is_model_ready(url, "sign"),
        "answers": answers,
    }


sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1]))) + "\n")
