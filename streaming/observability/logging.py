"""Sets up structured logs on stderr: one line per event, never a value of a transaction."""

import logging
import sys
import time
from collections import Counter

import structlog
from typing_extensions import override

from streaming.settings.sections import LogSettings

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

# A library's line is not repeated for so long, seconds.
REPEAT_S = 60.0


def configure(settings: LogSettings) -> None:
    """Send structlog's and kafka-python's lines to stderr in the chosen form."""
    as_text = settings.format == "text" or (settings.format == "auto" and sys.stderr.isatty())
    renderer = structlog.dev.ConsoleRenderer() if as_text else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[settings.level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Forward()], force=True)
    # It repeats what our own lines say, once per attempt and connection.
    logging.getLogger("kafka").setLevel(logging.ERROR if settings.level != "debug" else logging.INFO)


class _Forward(logging.Handler):
    """Passes lines of libraries on to structlog, each kind at most once in a while.

    During an outage kafka-python writes a line for each attempt of each connection, and our own say the rest.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}
        self._kept_back: Counter[tuple[str, str]] = Counter()

    @override
    def emit(self, record: logging.LogRecord) -> None:
        kind, now = (record.name, str(record.msg)), time.monotonic()
        if now - self._last.get(kind, float("-inf")) < REPEAT_S:
            self._kept_back[kind] += 1
            return
        self._last[kind] = now
        more = {"times": count} if (count := self._kept_back.pop(kind, 0)) else {}
        structlog.get_logger().log(
            record.levelno, "library", logger=record.name, message=record.getMessage(), **more
        )
