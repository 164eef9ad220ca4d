"""From a built revision to one that has its variants on other runtimes as well: nothing is trained anew.

1. `load`: the labelled rows that the revision was measured on; the family's own code.
2. Port the variants; one that cannot be ported, or whose answers differ, is left out with its reason.
3. Measure accuracy, calibration and batch invariance of the ports, then a latency profile of all.
4. The Pareto frontier decides anew what is loaded by default.
5. Publish the whole as a new revision.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from variants.assessment import Assessment, HeldOut, assess
from variants.build import DEFAULT_STAGE_S
from variants.candidates import faults_of_the_spec
from variants.fingerprint import available_cores
from variants.held_out import held_out
from variants.manifest import FamilyManifest, StageManifest, VariantManifest
from variants.porting.ports import Port, Porter, wanted_ports
from variants.porting.tools import NO_TOOLS, PYTHON
from variants.preparation import open_preparation
from variants.profiling import ProfileMode, load_profile, profile_family, save_profile
from variants.progress import BuildProgress, Display, open_display
from variants.repository import Repository
from variants.reselection import reselect_family
from variants.revision import RevisionFolder
from variants.runtimes.table import ONNXRUNTIME, RUNTIMES, Runtime
from variants.selection import own_notes, select
from variants.sources import cache_folder
from variants.spec import BuildContext, BuildError, BuildStage, FamilySpec, check_dataset
from variants.succession import check_profilable, copy_files, known_scores, stale, successor

_STAGES = (BuildStage.DATA, BuildStage.PORT, BuildStage.EVALUATE, BuildStage.PROFILE, BuildStage.PUBLISH)


def all_runtimes(log: Callable[[str], None]) -> tuple[str, ...]:
    """Return the runtimes that families can be ported to here; `log` is told why others are left out."""
    lacks = {name: runtime.lack() for name, runtime in RUNTIMES.items() if name != ONNXRUNTIME}
    if not lacks["litert"] and not PYTHON.is_file():
        lacks["litert"] = f"the runtime litert is installed, but {NO_TOOLS}"
    for lack in filter(None, lacks.values()):
        log(lack)
    return tuple(name for name, lack in lacks.items() if not lack)


def usable_runtimes(names: Sequence[str]) -> tuple[str, ...]:
    """Return the runtimes named, once each, without onnxruntime, which every revision is built for.

    Raises `BuildError` for one that nobody knows or that cannot be used here.
    """
    for name in names:
        if name not in RUNTIMES:
            raise BuildError(f"no runtime {name!r}, known are {', '.join(RUNTIMES)}")
        if lack := RUNTIMES[name].lack():
            raise BuildError(lack)
    return tuple(name for name in dict.fromkeys(names) if name != ONNXRUNTIME)


def extend_family(
    spec: FamilySpec,
    repository: Repository,
    runtimes: Sequence[str],
    *,
    only: Sequence[str] = (),
    display: Display | None = None,
    profile_mode: ProfileMode = "quick",
    jobs: int | None = None,
    cache: Path | None = None,
    batch_tolerance: float | None = None,
) -> RevisionFolder:
    """Port the active revision of a built family, and make what comes of it the active one.

    `only` names the variants to port, by default all that compete; what is ported already stays as it is, and where
    that is everything the active revision is returned. A `batch_tolerance` replaces that of the revision, and then all
    compete anew. Raises `BuildError`, `RepositoryError`.
    """
    folder = repository.open(spec.name)
    tolerance = folder.manifest.batch_tolerance if batch_tolerance is None else batch_tolerance
    check_profilable(folder.manifest)
    wanted = wanted_ports(folder.manifest.variants, usable_runtimes(runtimes), only, tolerance)
    if not wanted:
        return reselect_family(repository, spec.name, tolerance, display=display)
    display = display or open_display(f"porting {spec.name}")
    progress = BuildProgress({stage: spec.expected_s.get(stage, DEFAULT_STAGE_S) for stage in _STAGES}, display)
    with (
        display,
        repository.new_staging(spec.name) as staging,
        tempfile.TemporaryDirectory(prefix=f"pareto-{spec.name}-") as scratch,
    ):
        # What loading the rows writes goes beside the revision, which has those files already.
        loading = Path(scratch) / "loading"
        loading.mkdir()
        context = BuildContext(spec, loading, Path(scratch), cache or cache_folder(), progress.advance, display.log)
        manifest = successor(folder.manifest).model_copy(update={"batch_tolerance": tolerance})
        extension = _Extension(context, folder, manifest, staging, progress, jobs or max(1, int(available_cores())))
        try:
            draft = extension.run(wanted, profile_mode)
            progress.begin(BuildStage.PUBLISH)
            published = repository.publish(draft, staging)
        except OSError as error:
            where = f"check the space left in {repository.root} and {scratch}"
            raise BuildError(f"{spec.name}: cannot be written: {error.strerror or error}; {where}") from error
        progress.end()
        return published


class _Extension:
    """One run. `facts` becomes the manifest's `build`."""

    def __init__(
        self,
        context: BuildContext,
        folder: RevisionFolder,
        manifest: FamilyManifest,
        staging: Path,
        progress: BuildProgress,
        jobs: int,
    ) -> None:
        self._context = context
        self._spec = context.spec
        self._old = folder
        self._staging = staging
        self._progress = progress
        self._jobs = jobs
        self._manifest = manifest

    def run(self, wanted: Sequence[tuple[VariantManifest, Runtime]], profile_mode: ProfileMode) -> FamilyManifest:
        """Fill the staging folder and return the manifest to publish it with."""
        self._progress.begin(BuildStage.DATA)
        rows = self._rows()
        known = known_scores(self._old)
        copy_files(self._old, self._staging)

        self._progress.begin(BuildStage.PORT)
        preparer = open_preparation(self._old)
        porter = Porter(RevisionFolder(self._staging, self._manifest), preparer, rows.test, self._context.log)
        ports: list[Port] = []
        for done, port in enumerate(porter.make_all(wanted), start=1):
            self._progress.advance(done / len(wanted))
            if port is not None:
                ports.append(port)
        self._need(ports, porter.left_out)

        self._progress.begin(BuildStage.EVALUATE)
        made = [port.made for port in ports]
        found = assess(made, preparer, rows, seed=self._spec.seed, jobs=self._jobs, advance=self._progress.advance)
        for port in ports:
            if port.made.name not in found:
                reason = "it gives logits that are not finite to some held-out rows"
                porter.leave_out(port.made.name, RUNTIMES[port.made.runtime], reason)
        ports = [port for port in ports if port.made.name in found]
        self._need(ports, porter.left_out)
        ported = [self._variant(port, found[port.made.name]) for port in ports]
        variants = [
            *(variant.model_copy(update={"notes": own_notes(variant)}) for variant in self._manifest.variants),
            *ported,
        ]
        stages = {stage.name: stage for port in ports for stage in port.stages}
        manifest = self._with(variants, stages, porter.left_out)

        self._progress.begin(BuildStage.PROFILE)
        draft = RevisionFolder(self._staging, manifest)
        profile = profile_family(draft, mode=profile_mode, progress=self._progress.advance)
        older = load_profile(self._old)
        if older is not None:
            # What a process of its own took does not change with who else is there.
            profile = profile.model_copy(update={"executors": older.executors, "footprints": older.footprints})
        save_profile(draft, profile)
        middle = len(self._manifest.sizes) // 2
        chosen = select(
            variants,
            {name: table.median_s[middle][0] for name, table in profile.variants.items()},
            {**known, **{name: assessment.scores for name, assessment in found.items()}},
            manifest.batch_tolerance,
        )
        return manifest.model_copy(update={"variants": chosen})

    def _need(self, ports: Sequence[Port], left_out: Mapping[str, str]) -> None:
        """Raise `BuildError` where nothing is left to publish."""
        if not ports:
            raise BuildError(f"{self._spec.name}: no variant could be ported: {next(iter(left_out.values()))}")

    def _rows(self) -> HeldOut:
        """The rows that the revision was measured on. Raises `BuildError` where they have changed."""
        with faults_of_the_spec(self._context, "load"):
            data = self._spec.load(self._context)
            check_dataset(data, self._spec)
        samples = self._old.samples()["label"]
        validation = self._old.calibration(self._manifest.variants[0].name).label
        if not np.array_equal(data.test.labels[: len(samples)], samples) or not np.array_equal(
            data.validation.labels, validation
        ):
            raise stale(self._old, "its rows are not those that the revision was measured on")
        return held_out(self._spec, data, open_preparation(self._old))

    def _variant(self, port: Port, assessment: Assessment) -> VariantManifest:
        name = port.made.name
        calibration_file, scores_file = assessment.store(self._staging, name)
        rewritten = port.model_file != port.of.model_file
        update = {
            "name": name,
            "lineage": port.made.artifact.lineage,
            "model_file": port.model_file,
            "calibration_file": calibration_file,
            "scores_file": scores_file,
            "stages": tuple(port.made.stages),
            "quality": assessment.quality,
            "invariance": assessment.invariance,
            "temperature": assessment.calibrated.temperature,
            "runtime": port.made.runtime,
            "parity": port.parity,
            "notes": "",
        }
        if rewritten:
            update["size_bytes"] = port.made.artifact.path.stat().st_size
        return port.of.model_copy(update=update)

    def _with(
        self, variants: Sequence[VariantManifest], stages: Mapping[str, StageManifest], left_out: Mapping[str, str]
    ) -> FamilyManifest:
        # Another port of the same chain may have brought its stages; a port left out before may be there now.
        stages = {stage.name: stage for stage in self._manifest.stages} | dict(stages)
        facts = dict(self._manifest.build) | {f"left_out.{name}": reason for name, reason in left_out.items()}
        for variant in variants:
            facts.pop(f"left_out.{variant.name}", None)
        return self._manifest.model_copy(
            update={
                "variants": tuple(variants),
                "stages": tuple(stages.values()),
                "build": facts,
            }
        )
