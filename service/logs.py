"""How the gateway's processes write their logs: as BentoML does, or one JSON object per line."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from pythonjsonlogger.orjson import OrjsonFormatter

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
    if settings.log_format == "json":
        logging.captureWarnings(capture=True)
        for handler in _handlers():
            handler.setFormatter(json_formatter())
            # They give records the fields of BentoML's own format, empty here.
            handler.filters.clear()


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
