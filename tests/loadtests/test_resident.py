"""What a gateway has in memory, as benchmarks ask it."""

from __future__ import annotations

from pathlib import Path

from loadtests.resident import bytes_before_models
from tests.service.families import sign_model, write_family
from variants.repository import Repository


def test_what_a_gateway_takes_before_any_model_is_known(tmp_path: Path) -> None:
    """Its budget holds nothing, so it is never ready; it is tens of megabytes all the same, profiles are taken."""
    write_family(Repository(tmp_path), "sign", {"only": (sign_model(), 0.8)})
    assert 30e6 < bytes_before_models(tmp_path, {"PARETO_SLOTS": "1"}) < 1e9
    assert list(tmp_path.glob("sign/*/profiles/*.json"))
