"""API keys as they are written down: a line for each, in the file that `keys_file` names and in `PARETO_API_KEYS`.

    NAME SECRET [role=infer,read] [tenant=TENANT]
    NAME sha256:HEX-DIGITS [role=admin]

In the variable `;` ends a line, too. Empty lines and what follows a `#` say nothing. What is wrong is said with the
number of its line and never with what stands there, which may be a secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from secrets import token_urlsafe

from service.access import LONGEST_SECRET, Key, Keys, Role, roles_of
from service.configuration import KEYS, SettingsError

SHORTEST_SECRET = 16
LARGEST_FILE_BYTES = 4 * 1024 * 1024

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# What RFC 6750 lets a bearer token be made of.
_SECRET = re.compile(rf"[A-Za-z0-9._~+/-]{{{SHORTEST_SECRET},{LONGEST_SECRET}}}=*")
_DIGEST = re.compile(r"sha256:([0-9a-fA-F]{64})")
_TENANT = re.compile(r"[!-~]{1,128}")
_ROLES = ", ".join(Role)


class KeysError(SettingsError):
    """Keys that cannot be used, in one line that names the place and no content."""


def read_keys(path: Path | None) -> Keys | None:
    """The keys of that file and of the environment; `None` where neither is given: then everybody may everything.

    Raises `KeysError`, also for a file or variable that is there and holds no key: that would lock out, or let in,
    everybody.
    """
    variable = os.environ.get(KEYS)
    keys: list[Key] = []
    if path is not None:
        keys += _parsed(_content(path), str(path))
    if variable is not None:
        keys += _parsed(variable.replace(";", "\n"), KEYS)
    if path is None and variable is None:
        return None
    names = [key.name for key in keys]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise KeysError(f"{path or KEYS}: two keys have the name {twice!r}")
    try:
        return Keys(keys)
    except ValueError as error:
        raise KeysError(f"{path or KEYS}: {error}") from None


def new_key(name: str, role: str, tenant: str | None = None) -> tuple[str, str]:
    """A random secret and the line that lets it in. Raises `ValueError` with what is expected."""
    secret = token_urlsafe(32)
    words = [name, f"sha256:{sha256(secret.encode()).hexdigest()}", f"role={role}"]
    if tenant is not None:
        words.append(f"tenant={tenant}")
    line = " ".join(words)
    if len(list(_lines(line))) != 1 or line.split() != words:
        raise ValueError("expected names and roles without spaces")
    _key(words)
    return secret, line


def holds_plain_secrets_for_all(path: Path) -> bool:
    """Whether the file has secrets themselves, and others than its owner and group may read it."""
    return bool(path.stat().st_mode & 0o004) and any(
        not _DIGEST.fullmatch(words[1]) for _, words in _lines(_content(path))
    )


def _content(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise KeysError(f"{path}: cannot read the API keys: {error.strerror}; see `keys_file`") from None
    if len(content) > LARGEST_FILE_BYTES:
        raise KeysError(f"{path}: expected API keys, at most {LARGEST_FILE_BYTES} bytes; see `keys_file`")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise KeysError(f"{path}: not UTF-8 at byte {error.start}; see `keys_file`") from None


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if words := line.partition("#")[0].split():
            yield number, words


def _parsed(text: str, source: str) -> list[Key]:
    keys = []
    for number, words in _lines(text):
        try:
            keys.append(_key(words))
        except ValueError as error:
            raise KeysError(f"{source}: line {number}: {error}") from None
    if not keys:
        raise KeysError(f"{source}: holds no API key, so nobody could get in; `pareto key NAME` makes one")
    return keys


def _key(words: list[str]) -> Key:
    """Raises `ValueError` with what is expected."""
    if len(words) < 2 or not _NAME.fullmatch(words[0]):
        raise ValueError("expected NAME SECRET, the name of at most 64 letters, digits, '.', '_' and '-'")
    name, secret, *rest = words
    if found := _DIGEST.fullmatch(secret):
        digest = bytes.fromhex(found[1])
    elif _SECRET.fullmatch(secret):
        digest = sha256(secret.encode()).digest()
    else:
        raise ValueError(
            f"expected as the secret {SHORTEST_SECRET} to {LONGEST_SECRET} letters, digits, '.', '_', '~', '+', '/' or "
            "'-', or sha256: and 64 hexadecimal digits; `pareto key NAME` makes one"
        )
    said: dict[str, str] = {}
    for word in rest:
        what, is_said, value = word.partition("=")
        if what not in ("role", "tenant") or not is_said or what in said:
            raise ValueError("expected role=... and tenant=..., once each, after the secret")
        said[what] = value
    try:
        roles = roles_of(said.get("role", Role.INFER).split(","))
    except ValueError:
        raise ValueError(f"expected as role= some of {_ROLES}, divided by commas") from None
    tenant = said.get("tenant", "")
    if "tenant" in said and not _TENANT.fullmatch(tenant):
        raise ValueError("expected as tenant= 1 to 128 printable ASCII characters")
    return Key(name, roles, tenant, digest)
