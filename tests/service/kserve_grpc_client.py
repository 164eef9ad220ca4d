"""Run by kserve's own interpreter (see `make clients`): argument 1 is the gRPC address; prints one line of JSON."""

import asyncio
import json
import sys

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest  # type: ignore[import-not-found]  # it lives elsewhere


def request(*, raw: bool, model: str = "sign") -> InferRequest:
    """Two rows for `sign`."""
    given = InferInput("x", [2, 4], "FP32")
    given.set_data_from_numpy(np.array([[1, 0, 0, 0], [-1, 0, 0, 0]], np.float32), binary_data=raw)
    said = {"timeout": 5_000_000}
    return InferRequest(model_name=model, model_version="quick", infer_inputs=[given], parameters=said)


async def main(address: str) -> dict[str, object]:
    """Health, a typed tensor and a raw one, a model that there is not."""
    answers = []
    async with InferenceGRPCClient(address, timeout=20) as client:
        for raw in (False, True):
            response = await client.infer(request(raw=raw), headers=(("x-slo-latency-ms", "5000"),))
            labels = response.outputs[0].as_numpy()
            answers.append([label.decode() if isinstance(label, bytes) else label for label in labels.tolist()])
        try:
            await client.infer(request(raw=True, model="nobody"))
            refused = "nothing"
        except grpc.RpcError as error:
            refused = error.code().name
        return {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model_ready": await client.is_model_ready("sign"),
            "answers": answers,
            "variant": response.model_version,
            "refused": refused,
        }


sys.stdout.write(json.dumps(asyncio.run(main(sys.argv[1]))) + "\n")
