"""What settings name in vain: told before anything is served, or in one line of the log."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from service.configuration import SettingsError
from service.foreseen import check_policy, ignored
from service.reading import FamilyReader
from service.settings import Settings
from tests.service.families import sign_model, write_family
from variants.repository import Repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """One with two families, one of which can be read no more."""
    repository = Repository(tmp_path)
    write_family(repository, "sign", {"quick": (sign_model(), 0.8), "slow": (sign_model(), 0.9)})
    write_family(repository, "torn", {"only": (sign_model(), 0.8)})
    repository.open("torn").file("family.json").write_text("{")
    return repository


def test_a_variant_that_any_family_is_served_with_will_do(repository: Repository) -> None:
    """Also lazily; and a policy that names none is none of this rule's business."""
    for policy in ("fixed:quick", "fixed:quick:lazy", "casc", "maxacc:lazy"):
        check_policy(Settings(policy=policy), repository)


def test_a_variant_that_is_there_but_not_loaded_is_told_of(repository: Repository) -> None:
    """With the setting that would load it."""
    settings = Settings(policy="fixed:slow", families={"sign": {"load": ["quick"]}})
    with pytest.raises(SettingsError) as caught:
        check_policy(settings, repository)
    assert str(caught.value).endswith("'slow'; sign has it, but does not load it: name it in families.sign.load")
    with pytest.raises(SettingsError, match=r"'only'; there are, of sign: quick, slow$"):
        check_policy(Settings(policy="fixed:only"), repository)


def test_what_is_ignored_is_named_and_what_may_be_meant() -> None:
    """Families with settings, or pinned, that there are not; and pins that nothing is held against."""
    settings = Settings(families={"sing": {}, "sign": {}}, pinned=("sign", "zebra"), memory_budget="1GiB")
    assert list(ignored(settings, ["sign"])) == [
        ("families.sing", "means nothing: 'sing' is not in the repository; did you mean 'sign'?"),
        ("pinned", "'zebra' is not in the repository"),
    ]
    (alone,) = ignored(Settings(pinned=("sign",)), ["sign"])
    assert alone == ("pinned", "means nothing without a memory_budget: everything stays in memory")


def test_serving_begins_with_a_warning_of_what_is_ignored(
    repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for each; the families that are there are read all the same."""
    settings = Settings(models=repository.root, families={"sing": {"slo_ms": 5}})
    with caplog.at_level(logging.WARNING, "pareto.gateway"):
        loaded = FamilyReader(lambda: settings, cascades=False).read_all({}, {})
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == ["families.sing means nothing: 'sing' is not in the repository; did you mean 'sign'?"]
    assert list(loaded) == ["sign"]
