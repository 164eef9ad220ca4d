"""What describes the server and its models: documents with the names of the protocol, which are JSON's and gRPC's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson

from service.oip.errors import malformed, shown
from service.oip.signature import TensorSpec

EXTENSIONS = ("binary_tensor_data", "model_repository", "parameters", "schedule_policy", "statistics")
"""The extensions of the protocol that the server has, under Triton's names."""


class IndexEntry(NamedTuple):
    """A version of a model in the repository. `state` is Triton's word, `reason` why it is not ready.

    An empty `version` stands for the model as a whole.
    """

    name: str
    version: str
    ready: bool
    reason: str = ""
    loading: bool = False

    @property
    def state(self) -> str:
        """`READY`, `LOADING` or `UNAVAILABLE`."""
        if self.loading:
            return "LOADING"
        return "READY" if self.ready else "UNAVAILABLE"


def server_metadata(name: str, version: str, extensions: Iterable[str] = EXTENSIONS) -> dict[str, Any]:
    """The body of `GET /v2`."""
    return {"name": name, "version": version, "extensions": list(extensions)}


def model_metadata(
    name: str,
    versions: Iterable[str],
    platform: str,
    inputs: Iterable[TensorSpec],
    outputs: Iterable[TensorSpec],
    parameters: Mapping[str, str | float],
) -> dict[str, Any]:
    """The body of `GET /v2/models/{m}` and of one version; -1 in a shape is a dimension of any length.

    `parameters` is what the server says beyond the protocol.
    """
    return {
        "name": name,
        "versions": list(versions),
        "platform": platform,
        "inputs": [_tensor(spec) for spec in inputs],
        "outputs": [_tensor(spec) for spec in outputs],
        "parameters": dict(parameters),
    }


def readiness(name: str, ready: bool, version: str | None = None) -> dict[str, Any]:
    """The body of `GET /v2/models/{m}/ready`; clients read the status, the body is for people."""
    return {"name": name, "ready": ready} | ({} if version is None else {"version": version})


def read_index_request(body: bytes) -> bool:
    """Whether `POST /v2/repository/index` wants only what is ready. An empty body does not.

    Raises `ProtocolError` 400.
    """
    if not body:
        return False
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise malformed("body", "JSON or nothing", str(error)[:200]) from None
    if type(document) is not dict:
        raise malformed("body", "a JSON object", shown(document))
    ready = document.get("ready", False)
    if type(ready) is not bool:
        raise malformed("ready", "true or false", shown(ready))
    return ready


def repository_index(entries: Iterable[IndexEntry], only_ready: bool = False) -> list[dict[str, str]]:
    """The body of the answer to `POST /v2/repository/index`."""
    return [
        {"name": entry.name, "version": entry.version, "state": entry.state, "reason": entry.reason}
        for entry in entries
        if entry.ready or not only_ready
    ]


def _tensor(spec: TensorSpec) -> dict[str, str | list[int]]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
