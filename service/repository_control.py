"""Loading and unloading families while requests flow: the control half of Triton's `model_repository` extension.

No request is lost: a new family or revision is opened beside those that serve, requests for the family wait for the few
milliseconds in which the old one's last answers go out, and then the new one has its place.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from router.scheduler import Scheduler
from service.canary_trial import State, Tryout
from service.gateway import Gateway, Phase
from service.loaded_family import LoadedFamily, cannot_be_loaded
from service.oip.errors import ProtocolError
from service.oip.metadata import IndexEntry
from service.piecewise import PiecewiseFamily
from service.room_words import TOO_LARGE
from service.swapping import busy, exchange, open_smallest, without_folder
from variants.repository import Repository, RepositoryError
from variants.session import ModelLoadError

logger = logging.getLogger("pareto.repository")

NOT_LOADED = "not loaded"
UNLOADED = "unloaded"
COLD = "cold: loaded at the first request"


class RepositoryControl:
    """Loads and unloads what the repository of a gateway has; one thing at a time.

    `changed` is called when other families or variants are served than before.
    """

    def __init__(self, gateway: Gateway, changed: Callable[[], None]) -> None:
        self._gateway = gateway
        self._changed = changed
        self.turn = asyncio.Lock()
        """Who changes what is served holds it."""
        self._unloaded: set[str] = set()
        self._loading: set[str] = set()

    async def load(self, name: str, revision: str | None = None, *, again: bool = False) -> None:
        """Serve a family of the repository, by default its active revision; another `revision` is activated.

        What is served already is loaded anew only where it is to be `again`, as with other settings; that leaves the
        revision that serves, which is not the active one where that could not be written.
        Raises `ProtocolError` 404 for a family that is not in the repository, 400 for one that cannot be loaded, 503
        for one whose requests do not end, and 500 where the revision serves but could not be made the active one.
        """
        async with self.turn:
            await self.load_in_turn(name, revision, again=again)

    async def load_in_turn(
        self, name: str, revision: str | None = None, *, again: bool = False, trial: Tryout | None = None
    ) -> None:
        """As `load`, for who holds the turn.

        To promote a `trial`: one that is ended while its revision is read is not loaded, but a `ProtocolError` 404.
        """
        gateway = self._gateway
        repository, scheduler = self.ready(name)
        try:
            old = gateway.families.get(name)
            wanted = revision or (old.family.revision if again and old is not None else "")
            if not wanted:
                wanted = await asyncio.to_thread(repository.active, name)
            if old is not None and old.family.revision == wanted and not again:
                await self._warm(name)
            else:
                self._loading.add(name)
                new, piece = await self._read(name, wanted)
                await self._replace(scheduler, new, piece, trial)
                self._unloaded.discard(name)
                self._changed()
        except (RepositoryError, ModelLoadError) as error:
            raise ProtocolError(400, f"failed to load {name!r}: {without_folder(error, repository.root)}") from None
        finally:
            self._loading.discard(name)
        if revision is not None:
            await self.activate(repository, name, revision)

    async def unload(self, name: str) -> None:
        """Answer what waits, then serve the family no longer. Raises `ProtocolError` 404 for one that is not served."""
        gateway = self._gateway
        async with self.turn:
            _, scheduler = self.ready(name)
            if name not in gateway.families:
                raise ProtocolError(404, f"model {name[:80]!r} is not loaded")
            waits = scheduler.cold().get(name)
            for missing in waits.missing if waits is not None else ():
                gateway.tell(partial(scheduler.refuse_cold, name, missing))
            async with gateway.intake.held(name) as quiet:
                if not quiet and scheduler.in_use(name):
                    raise busy(name)

                def remove(now: float) -> None:
                    scheduler.remove(name, now)
                    gateway.take(name)

                await exchange(gateway, name, None, remove)
            gateway.canaries.forget(name)
            self._unloaded.add(name)
            self._changed()

    def index(self) -> Iterable[IndexEntry]:
        """Every variant of every family in the repository, as far as it is known: state, and why it is not ready."""
        gateway = self._gateway
        idle = "" if gateway.phase is Phase.READY else gateway.phase.value
        residency = gateway.residency
        loading = residency.moves.loading if residency is not None else None
        for name, loaded in gateway.families.items():
            served = {variant.name for variant in loaded.family.variants}
            broken = {} if gateway.scheduler is None else gateway.scheduler.quarantined(name)
            for variant in loaded.manifest.variants:
                reason = idle
                if variant.name in broken:
                    reason = f"in quarantine: {broken[variant.name].reason.value}"
                if variant.name not in loaded.paths:
                    known = NOT_LOADED
                    if variant.name in served:
                        fits = residency is None or not residency.room.lacks_room(name, variant.name)
                        known = COLD if fits else TOO_LARGE
                    reason = loaded.refused.get(variant.name, known)
                at = loading is not None and loading.family == name and loaded.family.variants[loading.variant].name
                yield IndexEntry(name, variant.name, not reason, reason, loading=at == variant.name)
        for name in sorted(self._loading - gateway.families.keys()):
            yield IndexEntry(name, "", False, "", loading=True)
        for name in gateway.problems:
            yield IndexEntry(name, "", False, cannot_be_loaded(name))
        for name in sorted(self._unloaded - gateway.families.keys()):
            yield IndexEntry(name, "", False, UNLOADED)

    async def _warm(self, name: str) -> None:
        residency = self._gateway.residency
        if residency is not None and not await residency.load_first(name):
            raise RepositoryError(f"{name}: none of its variants can be loaded within the memory budget")

    async def activate(self, repository: Repository, name: str, revision: str) -> None:
        """Have the next start serve that revision too. Raises `ProtocolError` 500 where that cannot be written."""
        try:
            if await asyncio.to_thread(repository.active, name) == revision:
                return
        except RepositoryError:
            # A file that cannot be read is written anew.
            pass
        try:
            await asyncio.to_thread(repository.activate, name, revision)
        except RepositoryError as error:
            fault = without_folder(error, repository.root)
            logger.error("family %s: revision %s serves, but ACTIVE could not be written: %s", name, revision, fault)
            raise ProtocolError(
                500, f"{name}: revision {revision!r} serves until the next start: ACTIVE could not be written: {fault}"
            ) from None

    async def _read(self, name: str, revision: str) -> tuple[LoadedFamily, PiecewiseFamily | None]:
        """From the repository; as it is in memory for its trial, where it is not loaded and dropped piece by piece."""
        gateway = self._gateway
        trial = gateway.canaries.trials.get(name)
        if trial is None or trial.report.revision != revision or not trial.is_shared:
            return await asyncio.to_thread(gateway.reader.read, name, revision)
        family = replace(trial.loaded.family, name=name, share=gateway.settings.share_of(name))
        return replace(trial.loaded, family=family), None

    async def _replace(
        self, scheduler: Scheduler, new: LoadedFamily, piece: PiecewiseFamily | None, trial: Tryout | None
    ) -> None:
        gateway, name = self._gateway, new.name
        margin = gateway.settings.margin_of(name)
        if piece is not None and gateway.residency is not None:
            await open_smallest(piece, gateway.residency)
        family = new.family if piece is None else piece.family()
        prepared = await asyncio.to_thread(scheduler.prepare, family, margin)
        async with gateway.intake.held(name) as quiet:
            if not quiet:
                raise RepositoryError(f"{name}: requests of the old revision have no answer after the drain time")

            def swap(now: float) -> None:
                if trial is not None and not gateway.canaries.is_running(trial):
                    raise ProtocolError(404, f"no trial of {name} runs any more: it was ended while it was promoted")
                scheduler.replace(prepared, now)
                gateway.put(new)
                promoted = gateway.canaries.revision(name) == new.family.revision
                end = (
                    (State.PROMOTED, "") if promoted else (State.STOPPED, f"revision {new.family.revision} was loaded")
                )
                gateway.canaries.end(name, *end)

            await exchange(gateway, name, piece, swap)

    def ready(self, name: str) -> tuple[Repository, Scheduler]:
        """Raise `ProtocolError` 503 while nothing is served, 404 for a family that there is not."""
        gateway = self._gateway
        repository = gateway.reader.repository
        if gateway.phase is not Phase.READY or gateway.scheduler is None:
            raise gateway.unavailable()
        if name not in gateway.families and name not in repository.families():
            raise ProtocolError(404, f"model {name[:80]!r} is not in the repository")
        return repository, gateway.scheduler
