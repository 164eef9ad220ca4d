"""Opening variants as paths of sessions: a whole graph is a path of one, a chain's stages are opened once and shared.

What cannot run is found here, by running it as requests will: stage by stage, each from the state of the one before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from service.crash_marker import CrashMarker
from service.scoped_settings import Stages
from variants.manifest import ModelFile, VariantManifest
from variants.preparation import Preparer, Row
from variants.repository import RevisionFolder
from variants.session import ModelLoadError, Session, SessionOptions, open_file
from variants.stages import State, collate_states, cut_states, run_stages

VariantPath = tuple[Session, ...]
OpenFile = Callable[[RevisionFolder, ModelFile, SessionOptions], Session]
"""Opens a model file of a revision, here (`variants.session.open_file`) or elsewhere (`service.processes`)."""


class NotNowError(ModelLoadError):
    """Nobody was there to open a model, which may be sound all the same. The message is one line."""


class KilledError(NotNowError):
    """Who opened or ran a model was killed meanwhile: for want of memory, say. No model does that by itself."""


def serves_stages(stages: Stages, variants: Iterable[VariantManifest], *, cascades: bool) -> bool:
    """Whether the variants of a family that have a chain are to be served as stages.

    `auto` wants a policy that cascades, and two variants that share the beginning of a chain: stages cost a little
    more than the whole graph, which only going on from one of them to the next pays back.
    """
    if stages != "auto":
        return stages == "on"
    shared = Counter(variant.stages[0] for variant in variants if variant.stages)
    return cascades and max(shared.values(), default=0) > 1


class PathOpener:
    """Opens variants of one revision; `rows` are prepared rows to try them with, or none.

    With `staged`, variants with a chain are opened as its stages and not as their whole graph. `opened` has sessions
    that are there already, by `ModelFile.key`. The `marker` is told of what is opened.
    """

    def __init__(
        self,
        folder: RevisionFolder,
        preparer: Preparer,
        options: SessionOptions,
        rows: Sequence[Row],
        *,
        staged: bool,
        opened: Mapping[str, Session] | None = None,
        open_one: OpenFile = open_file,
        marker: CrashMarker | None = None,
    ) -> None:
        self._folder = folder
        self._preparer = preparer
        self._options = options
        self._rows = rows
        self._staged = staged
        self._opened: dict[str, Session] = dict(opened or {})
        self._open_one = open_one
        self._marker = marker

    def open(self, variant: VariantManifest) -> VariantPath:
        """Open a variant and try it. Raises `ModelLoadError` (`NotNowError`), `RepositoryError` where that fails."""
        if self._marker is None:
            return self._opened_and_tried(variant)
        key = self._folder.manifest.name, self._folder.manifest.revision, variant.name
        if times := self._marker.left_out(*key):
            raise ModelLoadError(
                f"{variant.name}: the process has ended {times} times while it was loaded; "
                "it is tried again when the gateway is started anew"
            )
        with self._marker.loading(*key):
            return self._opened_and_tried(variant)

    def _opened_and_tried(self, variant: VariantManifest) -> VariantPath:
        path = tuple([self._session(file) for file in self._folder.manifest.path_of(variant, staged=self._staged)])
        # One row, then several: no request pays for lazy initialisation, and a model that cannot run is refused.
        for batch in (self._rows[:1], self._rows) if self._rows else ():
            self._try(path, batch)
        return path

    def _session(self, file: ModelFile) -> Session:
        session = self._opened.get(file.key)
        if session is None:
            session = self._opened[file.key] = self._open_one(self._folder, file, self._options)
        return session

    def _try(self, path: VariantPath, batch: Sequence[Row]) -> None:
        expected = (len(batch), len(self._folder.manifest.labels))
        sizes = [len(row) for row in batch]
        states: Sequence[State] = ()
        for number, stage in enumerate(path):
            try:
                feeds = collate_states(stage, states) if number else self._preparer.collate(batch)
                logits, state = run_stages((stage,), feeds)
                logits = np.asarray(logits)
                states = () if state is None else cut_states(stage, state, sizes)
            except NotNowError:
                raise
            except Exception as error:
                raise ModelLoadError(f"{stage.path}: does not run: {one_line(error)}") from error
            if logits.shape != expected or logits.dtype.kind != "f" or not np.isfinite(logits).all():
                raise ModelLoadError(
                    f"{stage.path}: expected finite logits {expected}, got {logits.dtype} of shape {logits.shape}"
                )
            if stage is not path[-1] and len(states) != len(batch):
                raise ModelLoadError(f"{stage.path}: leaves no state for the stage after it")


def one_line(error: Exception) -> str:
    """What an exception says, in one line of bounded length."""
    return " ".join(str(error).split())[:300] or type(error).__name__
