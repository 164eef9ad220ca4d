"""From the candidates that a family yields to the variants that were made: what fails is left out with its reason."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from variants import evaluate
from variants.assessment import MadeVariant
from variants.preparation import Preparer, Row
from variants.recipes.artifact import EXPORT
from variants.session import open_session
from variants.spec import BuildContext, BuildError, Candidate, Dataset

PARITY_ROWS = 16
PARITY_TOLERANCE = 1e-3
"""Largest difference of a logit between an exported fp32 graph and the original that float32 arithmetic explains."""


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
        before it is made. Raises `BuildError` where an essential one fails.
        """
        made: list[MadeVariant] = []
        for candidate in self._candidates(function, data):
            yielded()
            try:
                made.append(self._make(candidate, preparer, rows[:PARITY_ROWS]))
            except Exception as error:
                reason = _reason(self._context, error)
                if candidate.essential:
                    raise BuildError(f"{self._name}: variant {candidate.name} cannot be made: {reason}") from error
                shutil.rmtree(self._context.staging / candidate.name, ignore_errors=True)
                self._facts[f"left_out.{candidate.name}"] = reason
                self._context.log(f"{candidate.name} is left out: {reason}")
        return made

    def _candidates(self, function: str, data: Dataset) -> Iterator[Candidate]:
        source: Callable[[BuildContext, Dataset], Iterator[Candidate]] = getattr(self._context.spec, function)
        with faults_of_the_spec(self._context, function):
            candidates = iter(source(self._context, data))
        while True:
            with faults_of_the_spec(self._context, function):
                candidate = next(candidates, None)
            if candidate is None:
                return
            yield candidate

    def _make(self, candidate: Candidate, preparer: Preparer, rows: Sequence[Row]) -> MadeVariant:
        artifact = candidate.make(self._context.model_path(candidate.name))
        session = open_session(artifact.path)
        if candidate.reference is not None:
            difference = evaluate.largest_difference(session, candidate.reference, preparer.collate(rows))
            self._facts[f"logit_difference.{candidate.name}"] = float(f"{difference:.3g}")
            if artifact.recipe == EXPORT and difference > PARITY_TOLERANCE:
                raise BuildError(f"its logits differ by {difference:.3g} from those of the model it was exported from")
        stages = {stage: self._context.stage_path(stage) for stage in candidate.stages}
        path = [open_session(file) for file in stages.values()]
        if path and not evaluate.paths_agree(session, path, preparer, rows):
            self._context.log(f"{candidate.name}: its stages do not answer bit for bit as its whole graph; not used")
            stages = {}
        return MadeVariant(candidate.name, artifact, session, stages, candidate.notes, candidate.counterpart)


def _reason(context: BuildContext, error: Exception) -> str:
    """Return an error as one line that is fit for the manifest: without the folders of this machine."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    for folder in (context.staging, context.scratch):
        line = line.replace(f"{folder}/", "")
    return line[:300]
