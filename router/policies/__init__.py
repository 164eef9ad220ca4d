"""The rules by name. A policy is a frozen dataclass with `decide`; there is no registry to join and no base class."""

from __future__ import annotations

from collections.abc import Callable

from router.policies.casc import Casc
from router.policies.cascadeserve import CascadeServe
from router.policies.early_exit import EarlyExit
from router.policies.fixed import Fixed
from router.policies.infaas import Infaas
from router.policies.jellyfish import Jellyfish
from router.policies.look_ahead import LookAhead
from router.policies.maxbatch import MaxAcc, MaxBatch
from router.policies.model_switching import ModelSwitching
from router.policies.proteus import Proteus
from router.policies.ramsis import Ramsis
from router.policies.slack_fraction import SlackFraction
from router.policies.slackfit import SlackFit
from router.view import Policy

_BASELINES: dict[str, Callable[[bool], Policy]] = {
    "slack-fraction": lambda early: SlackFraction(early_drop=early),
    "fastest": lambda early: Fixed("cheapest", early),
    "most-accurate": lambda early: Fixed("best", early),
    "slackfit": lambda early: SlackFit(early_drop=early),
    "maxbatch": MaxBatch,
    "maxacc": MaxAcc,
    "infaas": lambda early: Infaas(early_drop=early),
    "model-switching": lambda early: ModelSwitching(early_drop=early),
    "jellyfish": lambda early: Jellyfish(early_drop=early),
    "proteus": lambda early: Proteus(early_drop=early),
    "ramsis": lambda early: Ramsis(early_drop=early),
    "cascadeserve": lambda early: CascadeServe(early_drop=early),
    "early-exit": lambda early: EarlyExit(early_drop=early),
}
_OWN: dict[str, Callable[[], Policy]] = {"casc": Casc, "fluid": LookAhead}
LAZY = ":lazy"
"""After the name of a baseline: rows are dropped only when their deadline is over."""
POLICIES = (*_OWN, *_BASELINES, "fixed:<variant>", f"<baseline>{LAZY}")
"""The names that `policy_named` understands, for help texts and error messages."""


def policy_named(name: str) -> Policy:
    """The policy of that name with its default parameters. Raises `ValueError` naming the known ones."""
    if name in _OWN:
        return _OWN[name]()
    early = not name.endswith(LAZY)
    base = name.removesuffix(LAZY)
    if base in _BASELINES:
        return _BASELINES[base](early)
    kind, _, variant = base.partition(":")
    if kind == "fixed" and variant:
        return Fixed(variant, early)
    raise ValueError(f"unknown policy {name!r}, expected one of {', '.join(POLICIES)}")
