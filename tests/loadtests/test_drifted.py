"""A variant that has lost a fifth: what audits would find of it, and that believing it gives accuracy back."""

from __future__ import annotations

import numpy as np
import pytest

from loadtests.drifted import compare, drifted, found
from loadtests.synthetic import synthetic


def test_audits_find_about_what_was_lost() -> None:
    """Where it newly is wrong the best variant mostly is not; nothing is found of one that is as it was."""
    _, sound = synthetic(1)
    worse = drifted(sound, "v1", 0.2, np.random.default_rng(1))
    assert found(sound, worse, "v1", "v4") == pytest.approx(0.2, abs=0.05)
    assert found(sound, worse, "v0", "v4") == found(sound, sound, "v1", "v4") == 0.0


def test_what_is_believed_gives_accuracy_back() -> None:
    """Under load the cheapest variant would answer many rows; believed to be bad, it answers fewer of them."""
    effective = compare("v0", 500.0, "casc", 0, duration_s=2.0)
    assert effective.sound > effective.ignored + 0.05
    assert effective.believed > effective.ignored + 0.05
