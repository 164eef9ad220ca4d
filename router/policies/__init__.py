"""The rules by name. A policy is a frozen dataclass with `decide`; there is no registry to join and no base class."""

from __future__ import annotations

from router.policies.casc import Casc
from router.policies.fixed import Fixed
from router.policies.slack_fraction import SlackFraction
from router.view import Policy

POLICIES = ("casc", "fluid", "slack-fraction", "fastest", "most-accurate", "fixed:<variant>")
"""The names that `policy_named` understands, for help texts and error messages."""


def policy_named(name: str) -> Policy:
    """The policy of that name with its default parameters. Raises `ValueError` naming the known ones."""
    if name == "casc":
        return Casc()
    if name == "fluid":
        return Casc(cascades=False)
    if name == "slack-fraction":
        return SlackFraction()
    if name == "fastest":
        return Fixed("cheapest")
    if name == "most-accurate":
        return Fixed("best")
    kind, _, variant = name.partition(":")
    if kind == "fixed" and variant:
        return Fixed(variant)
    raise ValueError(f"unknown policy {name!r}, expected one of {', '.join(POLICIES)}")
