"""Reading families from the model repository as the settings want them: loaded, or piece by piece under a budget."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from service.crash_marker import CrashMarker
from service.footprint import OWN, Footprint
from service.foreseen import ignored
from service.loaded_family import LoadedFamily
from service.loading import Device, load_family
from service.piecewise import PiecewiseFamily
from service.settings import Settings
from variants.repository import Repository, RepositoryError
from variants.session import SessionOptions

logger = logging.getLogger("pareto.gateway")


class FamilyReader:
    """Reads for a replica whose settings are what `settings` returns; its `repository` is the same all the time.

    With `cascades`, families come with what a policy needs that answers rows again. Models are opened by
    its `footprint`; the `marker` knows of that, and which of them ended the process before.
    """

    def __init__(self, settings: Callable[[], Settings], *, cascades: bool, marker: CrashMarker | None = None) -> None:
        self.repository = Repository(settings().models)
        self._settings = settings
        self._cascades = cascades
        self._marker = marker
        self.footprint: Footprint = OWN

    def read(
        self, name: str, revision: str | None = None, alias: str | None = None
    ) -> tuple[LoadedFamily, PiecewiseFamily | None]:
        """Read a revision of a family, by default the active one, and load it where there is no memory budget.

        With an `alias`, that is what the scheduler is to call it. It takes seconds and runs on any thread. Raises
        `RepositoryError`.
        """
        settings, cascades = self._settings(), self._cascades
        options = SessionOptions(threads=settings.threads_per_slot, slots=settings.slot_count)
        devices = [
            Device(device, SessionOptions(threads=own.threads, slots=own.slots), own.cores)
            for device in settings.widths
            if (own := settings.devices.get(device)) is not None
        ]
        wanted, stages, share = settings.load_of(name), settings.stages_of(name), settings.share_of(name)
        if settings.memory_budget is None:
            loaded = load_family(
                self.repository,
                name,
                options,
                wanted,
                stages=stages,
                cascades=cascades,
                revision=revision,
                open_one=self.footprint.open_one,
                marker=self._marker,
                devices=devices,
            )
            return replace(loaded, family=replace(loaded.family, name=alias or name, share=share)), None
        piece = PiecewiseFamily(
            self.repository,
            name,
            options,
            wanted,
            stages=stages,
            cascades=cascades,
            when_cold=settings.family(name).when_cold,
            share=share,
            revision=revision,
            alias=alias,
            marker=self._marker,
            footprint=self.footprint,
            devices=devices,
        )
        return piece.loaded, piece

    def read_all(self, pieces: dict[str, PiecewiseFamily], problems: dict[str, str]) -> dict[str, LoadedFamily]:
        """Read every family; adds those under a budget to `pieces`, and the fault of each that cannot be served.

        Raises `RepositoryError` or `OSError` where there is no repository.
        """
        loaded: dict[str, LoadedFamily] = {}
        names = self.repository.families()
        for setting, text in ignored(self._settings(), names):
            logger.warning("%s %s", setting, text)
        for name in names:
            try:
                loaded[name], piece = self.read(name)
                if piece is not None:
                    pieces[name] = piece
            except Exception as error:
                problems[name] = str(error)
                if not isinstance(error, RepositoryError):
                    logger.exception("family %s: a fault that nobody foresaw", name)
                logger.error("family %s is not served: %s", name, error)
        return loaded
