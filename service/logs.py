"""How the gateway's processes write their logs: as BentoML does, or one JSON object per line."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from http import HTTPStatus

from bentoml.exceptions import BentoMLException
from pythonjsonlogger.orjson import OrjsonFormatter

from service.oip.errors import ProtocolError
from service.settings import Settings


def configure_logs(settings: Settings) -> None:
    """Set the level of our own logs, and in which form this process writes what any library logs.

    To be called once BentoML has set up its handlers, in its supervisor and in the process that serves.
    """
    logging.getLogger("pareto").setLevel(settings.log_level.upper())
    # A line for every request costs about 5 us; `access_log_share` asks for some of them.
    access = logging.getLogger("uvicorn.access")
    access.handlers.clear()
    access.propagate = False
    exceptions = logging.getLogger("bentoml._internal.server.http_app")
    if _is_told not in exceptions.filters:
        exceptions.addFilter(_is_told)
    if settings.log_format == "json":
        logging.captureWarnings(capture=True)
        for handler in _handlers():
            handler.setFormatter(json_formatter())
            # They give records the fields of BentoML's own format, empty here.
            handler.filters.clear()


def _is_told(record: logging.LogRecord) -> bool:
    """Whether BentoML's line of an exception is to be written: with a traceback only where something is broken.

    What a caller did wrong, and a request that had its outcome, are no fault of the server's: BentoML writes a line and
    a traceback for each. Of one that is answered with 5xx a line stays, as BentoML keeps its message from the caller.
    """
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, BentoMLException):
        return True
    if error.error_code.value < HTTPStatus.INTERNAL_SERVER_ERROR:
        return False
    if isinstance(error.__cause__, ProtocolError):
        record.msg, record.args = "%s: %d, %s", (*_paths(record.args)[:1], error.error_code.value, error)
        record.exc_info, record.levelno, record.levelname = None, logging.WARNING, "WARNING"
    return True


def _paths(args: object) -> tuple[object, ...]:
    return args if isinstance(args, tuple) else ()


def json_formatter() -> logging.Formatter:
    """Time (ISO 8601, UTC), level, logger, message, exception if there is one, and whatever else a record has."""
    names = {"levelname": "level", "name": "logger", "exc_info": "exception", "stack_info": "stack"}
    return OrjsonFormatter(["levelname", "name", "message"], rename_fields=names, timestamp="time")


def _handlers() -> Iterator[logging.Handler]:
    """Every handler of every logger."""
    # A copy: threads of libraries make loggers meanwhile.
    known = list(logging.root.manager.loggerDict.values())
    for logger in (logging.root, *(one for one in known if isinstance(one, logging.Logger))):
        yield from logger.handlers
