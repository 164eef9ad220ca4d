"""The variables of a replica: its settings, with as many slots as it has cores where they say nothing of slots."""

from __future__ import annotations

from service.settings import Settings


def variables_of(settings: Settings, cores: int) -> dict[str, str]:
    """What another process reads the same settings from."""
    variables = settings.environment()
    if not settings.devices:
        variables.setdefault("PARETO_SLOTS", str(cores))
    return variables
