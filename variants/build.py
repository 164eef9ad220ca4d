"""From a family spec to a revision in the model repository: the same steps for every family.

1. `load`: labelled rows in three parts.
2. Train or load the model: the family's own code.
3. Write the candidates; one that fails is left out with its reason.
4. Measure accuracy, calibration and batch invariance, then a latency profile.
5. The Pareto frontier of (accuracy, latency, size) decides what is loaded by default.
6. Publish the whole in one rename.

Everything is written into a staging folder that disappears with any failure or interrupt, so the repository holds a
whole revision or none. What is expensive and reusable (downloads, trained weights) lives in the cache folder.
"""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from pydantic import ValidationError

from variants.assessment import Assessment, MadeVariant, assess
from variants.calibrate import expected_calibration_error
from variants.candidates import CandidateMaker, faults_of_the_spec
from variants.draft import check_spec, draft_manifest, revision_name
from variants.fingerprint import available_cores
from variants.held_out import held_out
from variants.manifest import SAMPLES_FILE, FamilyManifest, VariantManifest, first_fault
from variants.measurements import Training
from variants.profiling import ProfileMode, profile_family, save_profile
from variants.progress import BuildProgress, Display, open_display
from variants.repository import Repository
from variants.revision import RevisionFolder
from variants.selection import select
from variants.shared_parts import NOTHING_MOVED
from variants.sharing import share_weights
from variants.sources import cache_folder
from variants.spec import (
    STAGES_FOLDER,
    BuildContext,
    BuildError,
    BuildStage,
    FamilySpec,
    LabelledRows,
    check_dataset,
)

DEFAULT_STAGE_S = 10.0
"""What a stage is expected to take where a family does not say."""


def build_family(
    spec: FamilySpec,
    repository: Repository,
    *,
    display: Display | None = None,
    profile_mode: ProfileMode = "quick",
    jobs: int | None = None,
    cache: Path | None = None,
    counterparts: bool = False,
) -> RevisionFolder:
    """Build a family, profile it, and make it the active revision of the repository.

    `display` defaults to a progress bar, or plain lines where the error output is no terminal; `jobs`, the threads
    that evaluate, to one per core; `cache` to `variants.sources.cache_folder()`. With `counterparts`, the networks that
    the family's exits are compared with are trained and measured too, which may take as long as the rest. Raises
    `BuildError` where the family as a whole cannot be built, `RepositoryError` where it cannot be written.
    """
    check_spec(spec)
    if counterparts and spec.counterparts is None:
        raise BuildError(f"{spec.name}: has no counterparts to train; build it without them")
    wanted = {BuildStage.TRAIN: spec.trains, BuildStage.COUNTERPARTS: counterparts, BuildStage.PORT: False}
    stages = [stage for stage in BuildStage if wanted.get(stage, True)]
    display = display or open_display(f"building {spec.name}")
    progress = BuildProgress({stage: spec.expected_s.get(stage, DEFAULT_STAGE_S) for stage in stages}, display)
    with (
        display,
        repository.new_staging(spec.name) as staging,
        tempfile.TemporaryDirectory(prefix=f"pareto-{spec.name}-") as scratch,
    ):
        context = BuildContext(
            spec=spec,
            staging=staging,
            scratch=Path(scratch),
            cache=cache or cache_folder(),
            advance=progress.advance,
            log=display.log,
        )
        build = _Build(context, progress, jobs or max(1, int(available_cores())), counterparts=counterparts)
        try:
            return build.run(repository, profile_mode)
        except OSError as error:
            where = f"check the space left in {repository.root} and {Path(scratch).parent}"
            raise BuildError(f"{spec.name}: cannot be written: {error.strerror or error}; {where}") from error


class _Build:
    """One run of the pipeline. `facts` becomes the manifest's `build`."""

    def __init__(self, context: BuildContext, progress: BuildProgress, jobs: int, *, counterparts: bool) -> None:
        self._context = context
        self._spec = context.spec
        self._progress = progress
        self._jobs = jobs
        self._counterparts = counterparts
        self._created = datetime.datetime.now(datetime.UTC)
        self._revision = revision_name(self._created)
        self._moved = NOTHING_MOVED
        self._facts: dict[str, str | float] = {"seed": float(self._spec.seed), "onnxruntime": onnxruntime.__version__}

    def run(self, repository: Repository, profile_mode: ProfileMode) -> RevisionFolder:
        self._progress.begin(BuildStage.DATA)
        with faults_of_the_spec(self._context, "load"):
            data = self._spec.load(self._context)
            check_dataset(data, self._spec)
        preparer = self._context.preparer()
        rows = held_out(self._spec, data, preparer)
        self._save_samples(data.test.take(slice(0, self._spec.samples)))

        self._progress.begin(BuildStage.TRAIN if self._spec.trains else BuildStage.VARIANTS)
        maker = CandidateMaker(self._context, self._facts)
        made = maker.make_all("build", data, preparer, rows.validation, self._candidate_yielded)
        if not made:
            raise BuildError(f"{self._spec.name}: no variant could be made")
        if self._counterparts:
            self._progress.begin(BuildStage.COUNTERPARTS)
            made += maker.make_all("counterparts", data, preparer, rows.validation, lambda: None)

        self._progress.begin(BuildStage.EVALUATE)
        assessments = assess(
            made, preparer, rows, seed=self._spec.seed, jobs=self._jobs, advance=self._progress.advance
        )
        for name in {variant.name for variant in made} - assessments.keys():
            maker.leave_out(name, "it gives logits that are not finite to some held-out rows")
        variants = [self._variant(variant, assessments) for variant in made if variant.name in assessments]
        if not variants:
            raise BuildError(f"{self._spec.name}: no variant gives finite logits to all held-out rows")

        self._remove_stages_but({stage for variant in variants for stage in variant.stages})
        variants = self._share(variants)

        self._progress.begin(BuildStage.PROFILE)
        draft = RevisionFolder(self._context.staging, self._manifest(variants))
        profile = profile_family(draft, mode=profile_mode, progress=self._progress.advance)
        save_profile(draft, profile)

        self._progress.begin(BuildStage.PUBLISH)
        middle = len(self._spec.sizes) // 2
        chosen = select(
            variants,
            {name: table.median_s[middle][0] for name, table in profile.variants.items()},
            {name: assessment.scores for name, assessment in assessments.items()},
            self._spec.batch_tolerance,
        )
        self._facts |= {f"seconds.{stage}": round(seconds, 2) for stage, seconds in self._progress.seconds.items()}
        published = repository.publish(self._manifest(chosen), self._context.staging)
        self._progress.end()
        return published

    def _candidate_yielded(self) -> None:
        """A family that trains does so before it yields its first candidate."""
        if self._spec.trains and BuildStage.TRAIN not in self._progress.seconds:
            self._progress.begin(BuildStage.VARIANTS)

    def _variant(self, made: MadeVariant, assessments: Mapping[str, Assessment]) -> VariantManifest:
        assessment = assessments[made.name]
        calibration_file, scores_file = assessment.store(self._context.staging, made.name)
        calibrated = assessment.calibrated
        error = expected_calibration_error(calibrated.confidence, calibrated.predicted == calibrated.label)
        self._facts[f"calibration_error.{made.name}"] = round(error, 4)
        try:
            return VariantManifest(
                name=made.name,
                recipe=made.artifact.recipe,
                lineage=made.artifact.lineage,
                model_file=f"{made.name}/model.onnx",
                calibration_file=calibration_file,
                stages=tuple(made.stages),
                quality=assessment.quality,
                invariance=assessment.invariance,
                temperature=calibrated.temperature,
                parameters=made.artifact.parameters,
                size_bytes=made.artifact.path.stat().st_size,
                macs=assessment.macs,
                scores_file=scores_file,
                training=_training(made.artifact.facts),
                counterpart=made.counterpart if made.counterpart in assessments else None,
                on_frontier=False,
                load_by_default=False,
                notes=made.notes,
            )
        except ValidationError as error:
            raise BuildError(f"{self._spec.name}: variant {made.name}: {first_fault(error)}") from error

    def _manifest(self, variants: Sequence[VariantManifest]) -> FamilyManifest:
        return draft_manifest(self._spec, self._revision, self._created, variants, self._facts, self._moved)

    def _share(self, variants: Sequence[VariantManifest]) -> list[VariantManifest]:
        """Store large weights beside the graphs, each once; return the variants with the files as they are now."""
        stages = {stage.name: stage.file for stage in self._manifest(variants).stages}
        files = {variant.name: variant.model_file for variant in variants}
        self._moved = share_weights(self._context.staging, files, stages)
        now = self._moved.files
        return [v.model_copy(update={"model_file": now.get(v.model_file, v.model_file)}) for v in variants]

    def _save_samples(self, samples: LabelledRows) -> None:
        arrays: Mapping[str, Any] = {name: _without_objects(values) for name, values in samples.inputs.items()}
        np.savez_compressed(self._context.staging / SAMPLES_FILE, **arrays, label=samples.labels)

    def _remove_stages_but(self, kept: Set[str]) -> None:
        for path in (self._context.staging / STAGES_FOLDER).glob("*.onnx"):
            if path.stem not in kept:
                path.unlink()


def _training(facts: Mapping[str, float]) -> Training | None:
    """Return what recipes recorded of their training, None where none did."""
    peak_bytes, labelled = facts.get("training_peak_rss_bytes"), facts.get("labelled_rows")
    training = Training(
        seconds=facts.get("training_s"),
        labelled_rows=None if labelled is None else round(labelled),
        peak_memory_bytes=None if peak_bytes is None else round(peak_bytes),
    )
    return None if training == Training() else training


def _without_objects(values: NDArray[Any]) -> NDArray[Any]:
    """Return text (an object array of UTF-8 bytes) as a fixed-width array, which is stored without pickling."""
    return np.array(values.tolist(), dtype=np.bytes_) if values.dtype == object else values
