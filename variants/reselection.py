"""Other variants of a built family compete: nothing is trained, and nothing measured that is measured already.

How far answers move with the rest of a batch was measured when a variant was made; by how much they may is the
family's `batch_tolerance`. Where that changes, the frontier decides anew what is loaded by default.
"""

from __future__ import annotations

from collections.abc import Mapping

from variants.profiles import carry_profiles
from variants.profiling import load_profile, profile_family, save_profile
from variants.progress import BuildProgress, Display, open_display
from variants.repository import Repository
from variants.revision import RevisionFolder
from variants.selection import own_notes, select
from variants.spec import BuildError, BuildStage
from variants.succession import check_profilable, copy_files, known_scores, successor

_EXPECTED_S: Mapping[str, float] = {BuildStage.PROFILE: 5.0, BuildStage.PUBLISH: 1.0}


def reselect_family(
    repository: Repository, name: str, batch_tolerance: float, *, display: Display | None = None
) -> RevisionFolder:
    """Publish the active revision anew with another `batch_tolerance`, and what competes under it.

    The active revision is returned where it has that one already. Latencies are those of this machine's profile, which
    is taken where there is none. Raises `BuildError`, `RepositoryError`.
    """
    old = repository.open(name)
    if batch_tolerance == old.manifest.batch_tolerance:
        return old
    scores = known_scores(old)
    manifest = successor(old.manifest).model_copy(update={"batch_tolerance": batch_tolerance})
    display = display or open_display(f"selecting {name}")
    progress = BuildProgress(_EXPECTED_S, display)
    with display, repository.new_staging(name) as staging:
        progress.begin(BuildStage.PROFILE)
        try:
            copy_files(old, staging)
            draft = RevisionFolder(staging, manifest)
            carry_profiles(old, draft)
            latency_s = _latency_s(draft, progress)
            variants = [one.model_copy(update={"notes": own_notes(one)}) for one in manifest.variants]
            progress.begin(BuildStage.PUBLISH)
            chosen = select(variants, latency_s, scores, batch_tolerance)
            published = repository.publish(manifest.model_copy(update={"variants": chosen}), staging)
        except OSError as error:
            raise BuildError(
                f"{name}: cannot be written: {error.strerror or error}; check the space left in {repository.root}"
            ) from error
        progress.end()
    return published


def _latency_s(draft: RevisionFolder, progress: BuildProgress) -> dict[str, float]:
    """Seconds of one row of the middle size class, of every variant."""
    manifest = draft.manifest
    profile = load_profile(draft)
    if profile is None or not {one.name for one in manifest.variants} <= profile.variants.keys():
        check_profilable(manifest)
        profile = profile_family(draft, progress=progress.advance)
        save_profile(draft, profile)
    middle = len(manifest.sizes) // 2
    return {name: table.median_s[middle][0] for name, table in profile.variants.items()}
