"""What is said of the server and its models, and how models are loaded, whichever protocol asks."""

from __future__ import annotations

from typing import Any

from service import SERVER_NAME, __version__
from service.canary_control import CanaryControl
from service.eligibility import check_variant
from service.gateway import Gateway
from service.load_request import LoadRequest
from service.loaded_family import LoadedFamily
from service.oip.errors import DroppedReason, ProtocolError
from service.oip.metadata import model_metadata, repository_index, server_metadata
from service.oip.statistics import statistics
from service.repository_control import RepositoryControl
from service.room_words import TOO_LARGE

PLATFORM = "onnxruntime_onnx"


class Descriptions:
    """Documents for one replica. A `variant` of `None` means the family as a whole.

    Methods that name a model raise `ProtocolError` 404 where there is no such family or variant, and 503 while none is
    served.
    """

    def __init__(self, gateway: Gateway, control: RepositoryControl, canaries: CanaryControl) -> None:
        self._gateway = gateway
        self._control = control
        self._canaries = canaries

    def server(self) -> dict[str, Any]:
        """Name, version and extensions of the server."""
        return server_metadata(SERVER_NAME, __version__)

    def model(self, name: str, variant: str | None) -> dict[str, Any]:
        """What a model takes and gives."""
        loaded = self._served(name, variant)
        manifest = loaded.manifest
        versions = (
            [v.name for v in loaded.family.variants if v.name not in loaded.refused] if variant is None else [variant]
        )
        said: dict[str, str | float] = {"revision": loaded.family.revision}
        slo_s = self._gateway.defaults(loaded.name).slo_s
        if slo_s is not None:
            said["default_slo_ms"] = 1e3 * slo_s
        return model_metadata(manifest.name, versions, PLATFORM, manifest.inputs, manifest.outputs, said)

    def check_ready(self, name: str, variant: str | None) -> None:
        """A model answers requests, and is to be sent some.

        Raises `ProtocolError` 400 for a variant that is not in memory, 503 where the replica ends soon, and for a
        variant in quarantine, a model of which nothing else is left, or one that does not fit into the memory budget.
        """
        loaded = self._served(name, variant)
        if not self._gateway.is_welcoming:
            raise self._gateway.unavailable()
        if variant is not None and variant not in loaded.paths:
            raise ProtocolError(400, f"version {variant!r} of {name} is not in memory")
        residency = self._gateway.residency
        if residency is not None and not loaded.paths and residency.room.lacks_room(name):
            raise ProtocolError(503, f"{name} {TOO_LARGE}", reason=DroppedReason.NOT_LOADED, retry_after_s=1.0)
        self._check_sound(name, variant)

    def statistics(self, name: str | None, variant: str | None) -> dict[str, Any]:
        """What a model did, or all of them."""
        if name is None:
            return statistics(self._gateway.statistics.counters())
        self._served(name, variant)
        return statistics(self._gateway.statistics.counters(name, variant))

    def index(self, *, only_ready: bool) -> list[dict[str, str]]:
        """What the repository holds, and in which state."""
        return repository_index(self._control.index(), only_ready)

    async def load(self, name: str, asked: LoadRequest) -> None:
        """Serve a model of the repository, or begin the trial of a revision. Raises `ProtocolError`.

        Who may is for `service.admin_access` to say.
        """
        if asked.trial is not None and asked.revision is not None:
            await self._canaries.start(name, asked.revision, asked.trial)
        else:
            await self._control.load(name, asked.revision)

    async def unload(self, name: str, asked: LoadRequest) -> None:
        """Serve a model no longer. Raises `ProtocolError`."""
        if asked.trial is not None:
            raise ProtocolError(400, "a trial begins with load; what ends it is /admin/canaries/NAME/rollback")
        await self._control.unload(name)

    def _check_sound(self, name: str, variant: str | None) -> None:
        scheduler = self._gateway.scheduler
        broken = {} if scheduler is None else scheduler.quarantined(name)
        held = broken.get(variant) if variant is not None else None
        if held is not None:
            said = f"version {variant!r} of {name} is in quarantine: {held.reason.value}"
        elif broken and variant is None and scheduler is not None and not scheduler.families[name].sound:
            said = f"every version of {name} is in quarantine"
        else:
            return
        raise ProtocolError(503, said, reason=DroppedReason.QUARANTINED, retry_after_s=1.0)

    def _served(self, name: str, variant: str | None) -> LoadedFamily:
        loaded = self._gateway.loaded(name)
        if variant is not None:
            check_variant(loaded, variant)
        return loaded
