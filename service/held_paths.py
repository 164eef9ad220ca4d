"""The variants of one revision that are in memory: opened on all devices together, and closed together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from types import MappingProxyType

from service.crash_marker import CrashMarker
from service.loading import Device
from service.paths import OpenFile, PathOpener, VariantPath
from service.pinning import kept_to
from variants.manifest import ModelFile, VariantManifest
from variants.preparation import Preparer, Row
from variants.repository import RepositoryError, RevisionFolder
from variants.session import ModelLoadError, Session, SessionOptions

OnDevices = Mapping[str, VariantPath]
"""A variant that is open, by device."""


class HeldPaths:
    """Those of the revision in `folder`, as stages or whole, on at least one device.

    `paths` has what is in memory by device, and then by variant; it is changed in place. Models are opened by
    `open_one`, which the `marker` is told of. `cells` has by device how much of a batch runs at once of models, by
    `ModelFile.key`; others run all of it.
    """

    def __init__(
        self,
        folder: RevisionFolder,
        devices: Sequence[Device],
        open_one: OpenFile,
        marker: CrashMarker | None,
        *,
        staged: bool,
        cells: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
    ) -> None:
        self.paths: dict[str, dict[str, VariantPath]] = {device.name: {} for device in devices}
        self._folder = folder
        self._devices = devices
        self._open_one = open_one
        self._marker = marker
        self._staged = staged
        self._cells = cells

    def open(self, variant: VariantManifest, preparer: Preparer, rows: Sequence[Row]) -> OnDevices:
        """Open a variant on each device and try it there with prepared `rows`; stages that are in memory are shared.

        Raises `ModelLoadError`, `RepositoryError` where one of them refuses it; then it is closed on those before.
        """
        opened: dict[str, VariantPath] = {}
        try:
            for device in self._devices:
                opener = PathOpener(
                    self._folder,
                    preparer,
                    device.options,
                    rows,
                    staged=self._staged,
                    opened=self._sessions(device.name),
                    open_one=partial(self._opened, self._cells.get(device.name, {})),
                    marker=self._marker,
                )
                with kept_to(device.cores):
                    opened[device.name] = opener.open(variant)
        except (ModelLoadError, RepositoryError):
            self._close(opened)
            raise
        if self._marker is not None:
            # Not before all devices have it: what ends the process then would be forgiven.
            self._marker.loaded(self._folder.manifest.name, self._folder.manifest.revision, variant.name)
        return opened

    def hold(self, variant: str, opened: OnDevices) -> None:
        """Have a variant in memory from now on."""
        # The first device last: whether it has a variant is what others go by.
        for device in reversed(self.paths):
            self.paths[device][variant] = opened[device]

    def drop(self, variant: str) -> None:
        """Close a variant that no batch uses; stages that another one in memory shares stay open."""
        self._close({device: held.pop(variant, ()) for device, held in self.paths.items()})

    def files(self, variant: str) -> tuple[ModelFile, ...]:
        """What is opened for a variant, in order."""
        manifest = self._folder.manifest
        return manifest.path_of(manifest.variant(variant), staged=self._staged)

    def _opened(
        self, cells: Mapping[str, int], folder: RevisionFolder, file: ModelFile, options: SessionOptions
    ) -> Session:
        return self._open_one(folder, file, replace(options, cells=cells.get(file.key), weighed=False))

    def _close(self, opened: OnDevices) -> None:
        for device, path in opened.items():
            shared = {id(session) for session in chain.from_iterable(self.paths[device].values())}
            for session in path:
                if id(session) not in shared:
                    session.close()

    def _sessions(self, device: str) -> dict[str, Session]:
        """Those in memory on a device, by `ModelFile.key`."""
        return {
            file.key: session
            for variant, path in self.paths[device].items()
            for file, session in zip(self.files(variant), path, strict=True)
        }
