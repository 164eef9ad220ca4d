"""The gateway's certificate: whether it can be used, said before anything is started, and read again on demand."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TypeAlias

from service.configuration import SettingsError
from service.settings import Settings

Pair: TypeAlias = tuple[bytes, bytes]
"""A private key and a certificate chain (PEM)."""
TRIES = 3
"""Whoever renews a certificate writes two files, one after the other."""


class _PasswordError(Exception):
    """The private key has a password."""


def check_certificate(settings: Settings) -> None:
    """Raise `SettingsError` with one line where the files that the settings name cannot be used."""
    if settings.ssl_certfile is None:
        return
    for setting in ("ssl_certfile", "ssl_keyfile"):
        path: Path | None = getattr(settings, setting)
        try:
            if path is not None:
                path.open("rb").close()
        except OSError as error:
            raise SettingsError(f"{setting}: {path}: {error.strerror}") from None
    try:
        load_certificate(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), settings)
    except _PasswordError:
        raise SettingsError(f"{_key_setting(settings)}: the private key has a password; give it one without") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(f"{_key_setting(settings)}: is not the private key of this certificate") from None
        raise SettingsError(
            f"ssl_certfile: {settings.ssl_certfile}: expected a certificate chain and, unless `ssl_keyfile` names "
            f"another file, its private key (PEM; {error.reason or 'nothing of that kind found'})"
        ) from None


def checked_pair(settings: Settings) -> Pair:
    """The private key and the chain that the files hold, both of one moment, checked.

    Raises `SettingsError` as `check_certificate`, and where the files change while they are read.
    """
    check_certificate(settings)
    for _ in range(TRIES):
        before = _pair(settings)
        check_certificate(settings)
        if before == _pair(settings):
            return before
    raise SettingsError(f"ssl_certfile: {settings.ssl_certfile} changes while it is read; try again")


def _pair(settings: Settings) -> Pair:
    chain = settings.ssl_certfile
    assert chain is not None, "asked only where there is a certificate"
    try:
        return (settings.ssl_keyfile or chain).read_bytes(), chain.read_bytes()
    except OSError as error:
        raise SettingsError(f"ssl_certfile: {error.filename}: {error.strerror}") from None


def load_certificate(context: ssl.SSLContext, settings: Settings) -> None:
    """Have connections from now on see the certificate as the files have it now. Raises `OSError`, `ssl.SSLError`."""
    assert settings.ssl_certfile is not None, "there is a context only where there is a certificate"

    def password() -> str:
        # OpenSSL would ask at the terminal.
        raise _PasswordError

    context.load_cert_chain(settings.ssl_certfile, settings.ssl_keyfile, password)


def _key_setting(settings: Settings) -> str:
    if settings.ssl_keyfile is None:
        return f"ssl_certfile: {settings.ssl_certfile}"
    return f"ssl_keyfile: {settings.ssl_keyfile}"
