"""Options that several commands share, and the settings they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.failure import CommandError

if TYPE_CHECKING:
    from service.settings import Settings

Models = Annotated[
    Path | None,
    typer.Option("--models", metavar="DIR", help="The model repository (setting `models`).", show_default=False),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Settings file. Default: $PARETO_CONFIG or ./pareto.toml.", show_default=False
    ),
]


def settings_from(config: Path | None = None, **flags: object) -> Settings:
    """The settings with these flags on top; None is a flag not given. Raises `CommandError`."""
    from service.configuration import SettingsError, load_settings

    try:
        return load_settings(config, flags)
    except SettingsError as error:
        raise CommandError(str(error), exit_code=2) from error
