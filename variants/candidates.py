"""From the candidates that a family yields to the variants that were made: what fails is left out with its reason."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from variants import evaluate
from variants.assessment import MadeVariant
from variants.manifest import EXPORTS_FOLDER, MANIFEST_FILE, NAME_PATTERN, PROFILES_FOLDER
from variants.preparation import LOGITS, Feeds, Preparer, Row
from variants.recipes.artifact import EXPORT, Artifact
from variants.room import raise_if_full
from variants.session import Session, open_session
from variants.shared_parts import GRAPHS_FOLDER
from variants.spec import STAGES_FOLDER, BuildContext, BuildError, Candidate, Dataset

PARITY_ROWS = 16
_TAKEN = frozenset({STAGES_FOLDER, GRAPHS_FOLDER, PROFILES_FOLDER, EXPORTS_FOLDER, MANIFEST_FILE})
"""Names in the revision's folder that no variant can have."""


@contextmanager
def faults_of_the_spec(context: BuildContext, function: str) -> Iterator[None]:
    """Turn whatever the family's own code raises into a `BuildError` that says whose fault it is."""
    try:
        yield
    except BuildError:
        raise
    except Exception as error:
        raise BuildError(f"{context.spec.name}: the family's {function}() failed: {_reason(context, error)}") from error


class CandidateMaker:
    """Makes the variants of one build. What is worth telling of them is entered into `facts`."""

    def __init__(self, context: BuildContext, facts: dict[str, str | float]) -> None:
        self._context = context
        self._name = context.spec.name
        self._facts = facts

    def make_all(
        self, function: str, data: Dataset, preparer: Preparer, rows: Sequence[Row], yielded: Callable[[], None]
    ) -> list[MadeVariant]:
        """Make every candidate that the family's `function` yields: `build` or `counterparts`.

        Parity is checked on the first `PARITY_ROWS` of the prepared rows. `yielded` is called with each candidate,
        before it is made. Raises `BuildError` where an essential one fails, or where what is yielded is no candidate
        of its own name, and `OSError` where a disk is full: whatever came next would fail, too.
        """
        made: list[MadeVariant] = []
        for candidate in self._candidates(function, data):
            yielded()
            try:
                made.append(self._make(candidate, preparer, rows[:PARITY_ROWS]))
            except Exception as error:
                raise_if_full(error, self._context.staging, self._context.scratch)
                reason = _reason(self._context, error)
                if candidate.essential:
                    raise BuildError(f"{self._name}: variant {candidate.name} cannot be made: {reason}") from error
                self.leave_out(candidate.name, reason)
        return made

    def leave_out(self, name: str, reason: str) -> None:
        """Remove what there is of a variant, and say why."""
        shutil.rmtree(self._context.staging / name, ignore_errors=True)
        self._facts[f"left_out.{name}"] = reason
        self._context.log(f"{name} is left out: {reason}")

    def _candidates(self, function: str, data: Dataset) -> Iterator[Candidate]:
        source: Callable[[BuildContext, Dataset], Iterator[Candidate]] = getattr(self._context.spec, function)
        with faults_of_the_spec(self._context, function):
            candidates = iter(source(self._context, data))
        while True:
            with faults_of_the_spec(self._context, function):
                try:
                    candidate = next(candidates)
                except StopIteration:
                    return
            self._check(candidate, function)
            yield candidate

    def _check(self, candidate: object, function: str) -> None:
        """Names become folders: of the revision, and of no other variant."""
        if not isinstance(candidate, Candidate):
            raise BuildError(f"{self._name}: the family's {function}() gave {candidate!r:.80}, not a Candidate")
        for name in (candidate.name, *candidate.stages):
            if not re.fullmatch(NAME_PATTERN, name):
                raise BuildError(f"{self._name}: {name!r:.80} is no name for a variant or a stage: {NAME_PATTERN}")
        if candidate.name in _TAKEN or (self._context.staging / candidate.name).exists():
            raise BuildError(f"{self._name}: two are called {candidate.name!r} in the revision's folder: rename one")

    def _make(self, candidate: Candidate, preparer: Preparer, rows: Sequence[Row]) -> MadeVariant:
        path = self._context.model_path(candidate.name)
        artifact: object = candidate.make(path)
        if not isinstance(artifact, Artifact) or artifact.path != path:
            raise BuildError(
                f"its make() gave {artifact!r:.80}, not the Artifact of the file that it was told to write"
            )
        session, feeds = open_session(path), preparer.collate(rows)
        self._check_answer(session, feeds)
        if candidate.reference is not None:
            difference, share = evaluate.largest_difference(session, candidate.reference, feeds)
            self._facts[f"logit_difference.{candidate.name}"] = float(f"{difference:.3g}")
            if artifact.recipe == EXPORT and share > candidate.tolerance:
                raise BuildError(f"its logits differ by {difference:.3g} from those of the model it was exported from")
        stages = {stage: self._context.stage_path(stage) for stage in candidate.stages}
        chain = [open_session(file) for file in stages.values()]
        if chain and not evaluate.paths_agree(session, chain, preparer, rows):
            self._context.log(f"{candidate.name}: its stages do not answer bit for bit as its whole graph; not used")
            stages = {}
        return MadeVariant(candidate.name, artifact, stages, candidate.notes, candidate.counterpart)

    def _check_answer(self, session: Session, feeds: Feeds) -> None:
        """Hold what a model takes and gives against the spec. Raises `BuildError`."""
        if set(session.input_names) != feeds.keys():
            raise BuildError(f"its model takes {', '.join(session.input_names)}; preparation gives {', '.join(feeds)}")
        if LOGITS not in session.output_names:
            raise BuildError(f"its model gives {', '.join(session.output_names)}, not {LOGITS!r}")
        logits = session.run(feeds)[LOGITS]
        wanted = (len(next(iter(feeds.values()))), len(self._context.spec.labels))
        if logits.shape != wanted or logits.dtype != np.float32:
            raise BuildError(
                f"its model gives {logits.dtype} {list(logits.shape)} as {LOGITS!r} for {wanted[0]} rows, "
                f"expected float32 {list(wanted)}"
            )
        if not np.isfinite(logits).all():
            raise BuildError(f"its model gives {LOGITS!r} that are not finite")


def _reason(context: BuildContext, error: Exception) -> str:
    """Return an error as one line that is fit for the manifest: without the folders of this machine."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    for folder in (context.staging, context.scratch):
        line = line.replace(f"{folder}/", "")
    return line[:300]
