"""How a command ends when the user has to do something about it: in one line, without a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class CommandError(Exception):
    """The message is one line (or one for each fault) that says what was wrong, where, and what to do."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@contextmanager
def faults_of_the_repository() -> Iterator[None]:
    """Turn what can be wrong with a model repository into a `CommandError`."""
    from variants.repository import RepositoryError
    from variants.session import ModelLoadError

    try:
        yield
    except (RepositoryError, ModelLoadError) as error:
        raise CommandError(str(error)) from error
    except PermissionError as error:
        raise CommandError(f"{error.filename}: no permission; choose another repository with --models") from error


@contextmanager
def faults_of_the_build(name: str, remedy: str = "`make build` in a checkout installs it") -> Iterator[None]:
    """Turn what can be wrong with a family, its sources and its tools into a `CommandError`.

    `remedy` says what to do where a package is missing.
    """
    try:
        from variants.spec import BuildError

        try:
            yield
        except BuildError as error:
            raise CommandError(str(error)) from error
    except ModuleNotFoundError as error:
        raise CommandError(f"building {name} needs {error.name}, which is not installed: {remedy}") from error
