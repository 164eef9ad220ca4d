"""Settings files in tests, and what is said of their faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.configuration import SettingsError, load_settings


def written(text: str) -> Path:
    path = Path("settings.toml")
    path.write_text(text, encoding="utf-8")
    return path


def faults(config: Path | None = None, **flags: object) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load_settings(config, flags)
    return str(caught.value).splitlines()
