"""Reading settings: flags over variables over the TOML file, and every fault said in one line that names its source."""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource
from pydantic_settings import SettingsError as UnreadableVariable

from service.device_settings import DeviceSettings
from service.scoped_settings import FamilySettings, TenantSettings
from service.settings import PATHS, PREFIX, Settings

DEFAULT_FILE = Path("pareto.toml")
"""Read from the working directory when no other file is named."""

SOURCES = "PARETO_SOURCES"
"""Where `pareto serve` has its settings from, for the server's process to read them there again."""

KEYS = "PARETO_API_KEYS"
"""API keys themselves: no setting, so that no message, dump or reload of settings can show them."""

OTHER_VARIABLES = frozenset({"PARETO_CONFIG", "PARETO_CACHE", "PARETO_DEBUG", SOURCES, KEYS})
"""Variables that are no settings of a replica."""

# Kubernetes gives every container such variables for each Service, one named `pareto` among them.
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT\w*)$|_PORT(_\d+_(TCP|UDP)\w*)?$|^PARETO_SERVICE_|^PARETO_PORT_\d+_")

_TABLES: Mapping[str, type[BaseModel]] = {
    "families": FamilySettings,
    "tenants": TenantSettings,
    "devices": DeviceSettings,
}
"""Settings that are tables of tables."""

_EXPECTED = {
    "dict_type": "a table",
    "model_type": "a table",
    "tuple_type": "a list",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "path_type": "a path",
    "string_type": "a string",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "greater_than": "more than {gt:.12g}",
    "greater_than_equal": "at least {ge:.12g}",
    "less_than": "less than {lt:.12g}",
    "less_than_equal": "at most {le:.12g}",
    "too_short": "a list of at least {min_length}",
    "string_too_short": "some text",
}
"""By pydantic's type of error, where its own words speak of Python instead of settings."""


class _Origins(NamedTuple):
    """What settings were read from, in order of precedence: flags by the names of settings, variables, the file."""

    flags: Collection[str]
    variables: Collection[str]
    file: Path | None


class SettingsError(ValueError):
    """Settings that cannot be used. The message has one line for each fault: key, source, expected, got."""


def load_settings(config: Path | None = None, overrides: Mapping[str, object] | None = None) -> Settings:
    """The settings of this process: `overrides` (flags; None is "not given") over `PARETO_...` variables over the file.

    The file is `config`, else the one that `PARETO_CONFIG` names (empty: none), else `pareto.toml` in the working
    directory if there is one. Raises `SettingsError`.
    """
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    path = _settings_file(config)
    document = {} if path is None else _read_toml(path)
    faults = list(_unknown_variables())
    try:
        variables = EnvSettingsSource(Settings)()
    except UnreadableVariable as error:
        raise SettingsError("\n".join([*faults, _not_json(error)])) from None
    try:
        settings = Settings.model_validate(_merged(_merged(document, variables), given))
    except ValidationError as error:
        origins = _Origins(given, _present(), path)
        faults += [_fault(detail, origins) for detail in error.errors()]
        raise SettingsError("\n".join(faults)) from None
    if faults:
        raise SettingsError("\n".join(faults))
    return settings


def sources(config: Path | None = None, overrides: Mapping[str, object] | None = None) -> str:
    """Where `load_settings` with these arguments has its settings from, for `reload_settings` of another process."""
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    path = _settings_file(config)
    above = _merged(EnvSettingsSource(Settings)(), given)
    said = {
        "file": path and str(path.absolute()),
        "above": above,
        "folder": str(Path.cwd()),
        "flags": list(given),
        "variables": _present(),
    }
    return json.dumps(said, default=str)


def reload_settings() -> Settings:
    """The settings of this process as they are now: those of its `sources` where it was given some, else as ever.

    Raises `SettingsError`.
    """
    if SOURCES not in os.environ:
        return load_settings()
    said = json.loads(os.environ[SOURCES])
    path = Path(said["file"]) if said["file"] else None
    try:
        settings = Settings.model_validate(_merged({} if path is None else _read_toml(path), said["above"]))
    except ValidationError as error:
        # The variables of this process have what it was started with, wherever that was from.
        origins = _Origins(said["flags"], said["variables"], path)
        raise SettingsError("\n".join(_fault(detail, origins) for detail in error.errors())) from None
    # As `Settings.environment` has told them to this process: relative ones start where the command was given.
    folder = Path(said["folder"])
    absolute = {name: folder / path for name in PATHS if (path := getattr(settings, name)) is not None}
    return settings.model_copy(update=absolute)


def _settings_file(config: Path | None) -> Path | None:
    if config is None and "PARETO_CONFIG" in os.environ:
        named = os.environ["PARETO_CONFIG"]
        return Path(named) if named else None
    if config is None:
        return DEFAULT_FILE if DEFAULT_FILE.is_file() else None
    return config


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot read the settings file: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 at byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path}: not valid TOML: {error}") from None


def _merged(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key; anything else in `upper` replaces what `lower` has."""
    merged = dict(lower)
    for key, value in upper.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _unknown_variables() -> Iterable[str]:
    """A misspelt variable would otherwise be ignored in silence."""
    for name in sorted(os.environ):
        if not name.upper().startswith(PREFIX) or name.upper() in OTHER_VARIABLES:
            continue
        key = name[len(PREFIX) :].lower().split("__")[0]
        if key not in Settings.model_fields and not _SERVICE_LINK.search(name):
            yield f"{name}: no setting has this name{_similar(key, Settings, PREFIX)}"


def _not_json(error: UnreadableVariable) -> str:
    """Variables that are a whole table of tables are JSON; say which one does not parse."""
    for name, value in sorted(os.environ.items()):
        if name.upper() in {PREFIX + table.upper() for table in _TABLES}:
            try:
                json.loads(value)
            except ValueError as fault:
                return f"{name}: expected a table as JSON, got {_shown(value)} ({fault})"
    return f"{PREFIX}...: {error}"


def _fault(detail: ErrorDetails, origins: _Origins) -> str:
    keys = tuple(str(part) for part in detail["loc"])
    said = detail["msg"].removeprefix("Value error, ")
    if not keys:
        return _conflict(said, detail["input"], origins)
    source = _source(keys, origins)
    where = f"{'.'.join(keys)} ({source})"
    if detail["type"] == "extra_forbidden":
        model, prefix = (_TABLES[keys[0]], ".".join(keys[:-1]) + ".") if len(keys) > 1 else (Settings, "")
        return f"{where}: no setting has this name{_similar(keys[-1], model, prefix)}"
    if keys[-1] == "[key]":
        return f"{'.'.join(keys[:-1])} ({source}): expected at most 32 small letters, digits, `-` and `_`"
    if detail["type"] == "value_error":
        return f"{where}: {said}"
    form = _EXPECTED.get(detail["type"])
    expected = said.removeprefix("Input should be ").split(", unable")[0]
    if form is not None:
        expected = form.format(**detail.get("ctx", {}))
    if expected == "a table" and source.upper().startswith(PREFIX):
        expected = "a table as JSON"
    return f"{where}: expected {expected}, got {_shown(detail['input'])}"


def _conflict(said: str, document: object, origins: _Origins) -> str:
    """What is wrong with several settings together, with the source of the one that it begins with, where it is set."""
    key, _, reason = said.partition(": ")
    if isinstance(document, Mapping) and key in document:
        return f"{key} ({_source((key,), origins)}): {reason}"
    return said


def _source(keys: tuple[str, ...], origins: _Origins) -> str:
    """Where the value at `keys` came from."""
    if keys and keys[0] in origins.flags:
        return f"--{keys[0].replace('_', '-')}"
    present = {name.upper(): name for name in origins.variables}
    for depth in range(len(keys), 0, -1):
        variable = PREFIX + "__".join(keys[:depth]).upper()
        if variable in present:
            return present[variable]
    return str(origins.file)


def _present() -> list[str]:
    """The variables of this process that may be settings."""
    return [name for name in os.environ if name.upper().startswith(PREFIX)]


def _similar(key: str, model: type[BaseModel], prefix: str) -> str:
    near = difflib.get_close_matches(key, model.model_fields, n=1)
    if not near:
        return f", known are {', '.join(model.model_fields)}"
    return f", did you mean {prefix}{near[0].upper() if prefix == PREFIX else near[0]}?"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
