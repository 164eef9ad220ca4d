"""What `pareto loadtest` tests, from its flags: the gateway, its families with their rows, and who asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from service.commands.failure import CommandError
from service.commands.loads import USAGE

if TYPE_CHECKING:
    from loadtests.harness.rows import Stock
    from loadtests.harness.subject import Member
    from loadtests.harness.target import Served, Target
    from loadtests.workload import SloMix

LONGEST_HEADER = 8192


@contextmanager
def faults_of_the_gateway() -> Iterator[None]:
    """Turn what can be wrong with the gateway, or with the rows for it, into a `CommandError`."""
    from loadtests.harness.rows import RowsError
    from loadtests.harness.target import TargetError

    try:
        yield
    except TargetError as error:
        raise CommandError(str(error)) from error
    except RowsError as error:
        raise CommandError(str(error), USAGE) from error


def target_of(url: str, headers: Sequence[str], *, insecure: bool) -> Target:
    """The gateway at an address, by HTTP where that names no protocol.

    Raises `CommandError` for an address that is none, and for headers that are none.
    """
    from loadtests.harness.target import Target

    if "://" not in url:
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        whole = False
    if not whole or parts.query or parts.fragment:
        raise CommandError(f"URL: expected http://HOST:PORT or https://HOST, got {url[:80]!r}", USAGE)
    if parts.username or parts.password:
        raise CommandError("URL: takes no user and password; give them with --header 'authorization: ...'", USAGE)
    return Target(url.rstrip("/"), headers_of(headers), insecure)


def headers_of(texts: Sequence[str]) -> dict[str, str]:
    """Headers by name in lower case, also from files of one a line. Raises `CommandError`, which repeats no value."""
    found: dict[str, str] = {}
    for text in texts:
        lines, where = [text], "--header"
        if text.startswith("@"):
            where = text[1:]
            try:
                lines = [line for line in Path(where).read_text(encoding="utf-8").splitlines() if line.strip()]
            except (OSError, UnicodeDecodeError) as error:
                raise CommandError(f"--header: {where}: cannot be read: {error}", USAGE) from error
        for line in lines:
            name, colon, value = line.partition(":")
            name, value = name.strip().lower(), value.strip()
            printable = line.isprintable() and line.isascii() and len(line) <= LONGEST_HEADER
            if not (colon and name and printable and " " not in name):
                raise CommandError(f"{where}: expected 'NAME: VALUE' in printable ASCII, got {name[:40]!r}...", USAGE)
            found[name] = value
    return found


def members_of(
    target: Target,
    names: Sequence[str] | None,
    mix: SloMix | None,
    variant: str | None,
    files: Sequence[str],
    models: Path,
    *,
    chosen: bool,
) -> tuple[Member, ...]:
    """The families to ask, with rows, SLOs and shares. `chosen` says that the repository was named by a flag.

    Raises `CommandError`, `TargetError`, `RowsError`, `TraceError` and `RepositoryError`.
    """
    import dataclasses

    from loadtests.harness.subject import Names, with_own

    shares = Names.parse(names or target.families(), "--family")
    if not shares.names:
        raise CommandError(f"{target.url} serves no family yet")
    paths = _files(files, shares.names)
    served = {name: target.served(name) for name in shares.names}
    stocks = {name: (one, _stock(target, one, paths.get(name), models, chosen=chosen)) for name, one in served.items()}
    members = with_own(stocks, shares, mix)
    if variant is None:
        return members
    if len(members) > 1:
        raise CommandError("--variant pins one of one family: name that with --family", USAGE)
    (member,) = members
    if variant not in member.served.variants:
        known = ", ".join(member.served.variants)
        raise CommandError(f"--variant: {member.served.family} has no {variant!r}, but {known}", USAGE)
    return (dataclasses.replace(member, variant=variant),)


def _files(texts: Sequence[str], families: Sequence[str]) -> Mapping[str, Path]:
    """Files of rows by family; one without a family's name is for the only one."""
    found: dict[str, Path] = {}
    for text in texts:
        name, named, path = text.partition("=")
        if not named:
            if len(families) > 1:
                raise CommandError(f"--rows: there are several families: say whose rows with FAMILY={text}", USAGE)
            name, path = families[0], text
        if name not in families:
            raise CommandError(f"--rows: {name!r} is not asked, but {', '.join(families)}", USAGE)
        found[name] = Path(path)
    return found


def _stock(target: Target, served: Served, path: Path | None, models: Path, *, chosen: bool) -> Stock:
    """A file's rows, those of a repository that was named, of one here that has the same revision, the gateway's."""
    from loadtests.harness.rows import from_file, from_gateway, from_repository

    if path is not None:
        return from_file(path, served)
    stock = from_repository(models, served, same_revision=not chosen) or from_gateway(target, served)
    if stock is None:
        raise CommandError(
            f"{served.family}: no rows to send: {target.url} shows none (`page_samples`, or a key without the role "
            "`read`); give --rows FILE, or --models with the repository that it serves"
        )
    return stock
