"""The methods that describe and control: server, models, statistics, repository. What they say is `Descriptions`'."""

from __future__ import annotations

from service.descriptions import Descriptions
from service.gateway import Gateway
from service.load_request import LoadRequest, load_request
from service.oip.errors import ProtocolError
from service.rpc import open_inference_pb2 as messages
from service.rpc.decode import parameters_of

Loading = messages.RepositoryModelLoadRequest | messages.RepositoryModelUnloadRequest


class RpcDescriptions:
    """Answers everything but inference. Every method raises `ProtocolError` where there is no answer."""

    def __init__(self, gateway: Gateway, descriptions: Descriptions) -> None:
        self._gateway = gateway
        self._descriptions = descriptions

    async def server_live(self, request: messages.ServerLiveRequest) -> messages.ServerLiveResponse:
        """`ServerLive`: who answers lives."""
        return messages.ServerLiveResponse(live=True)

    async def server_ready(self, request: messages.ServerReadyRequest) -> messages.ServerReadyResponse:
        """`ServerReady`."""
        return messages.ServerReadyResponse(ready=self._gateway.is_welcoming)

    async def model_ready(self, request: messages.ModelReadyRequest) -> messages.ModelReadyResponse:
        """`ModelReady`; a model that there is not is not ready."""
        try:
            self._descriptions.check_ready(request.name, request.version or None)
        except ProtocolError:
            return messages.ModelReadyResponse(ready=False)
        return messages.ModelReadyResponse(ready=True)

    async def server_metadata(self, request: messages.ServerMetadataRequest) -> messages.ServerMetadataResponse:
        """`ServerMetadata`."""
        return messages.ServerMetadataResponse(**self._descriptions.server())

    async def model_metadata(self, request: messages.ModelMetadataRequest) -> messages.ModelMetadataResponse:
        """`ModelMetadata`, whose message has no place for parameters."""
        said = self._descriptions.model(request.name, request.version or None)
        del said["parameters"]
        return messages.ModelMetadataResponse(**said)

    async def model_statistics(self, request: messages.ModelStatisticsRequest) -> messages.ModelStatisticsResponse:
        """`ModelStatistics`, of all models where none is named."""
        said = self._descriptions.statistics(request.name or None, request.version or None)
        return messages.ModelStatisticsResponse(**said)

    async def repository_index(self, request: messages.RepositoryIndexRequest) -> messages.RepositoryIndexResponse:
        """`RepositoryIndex`."""
        _only_repository(request.repository_name)
        return messages.RepositoryIndexResponse(models=self._descriptions.index(only_ready=request.ready))

    async def load(self, request: messages.RepositoryModelLoadRequest) -> messages.RepositoryModelLoadResponse:
        """`RepositoryModelLoad`, for callers who may."""
        name, asked = _loading(request)
        await self._descriptions.load(name, asked)
        return messages.RepositoryModelLoadResponse(model_name=name, isLoaded=True)

    async def unload(self, request: messages.RepositoryModelUnloadRequest) -> messages.RepositoryModelUnloadResponse:
        """`RepositoryModelUnload`, for callers who may."""
        name, asked = _loading(request)
        await self._descriptions.unload(name, asked)
        return messages.RepositoryModelUnloadResponse(model_name=name, isUnloaded=True)


def model_of(request: Loading) -> str:
    """The model's name, which KServe's clients have where Triton's have a repository."""
    return request.model_name or request.repository_name


def _loading(request: Loading) -> tuple[str, LoadRequest]:
    """The model's name, and how it is to be loaded."""
    asked = load_request(parameters_of(request.parameters))
    if request.model_name:
        _only_repository(request.repository_name)
    return model_of(request), asked


def _only_repository(name: str) -> None:
    if name:
        raise ProtocolError(404, f"repository {name[:80]!r} not found: there is one, and it has no name")
