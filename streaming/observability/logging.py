"""Sets up structured logs on stderr: one line per event, never a value of a transaction."""

import logging
import sys

import structlog

from streaming.settings.sections import LogSettings

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


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
    """Passes lines of libraries on to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        log.log(record.levelno, "library", logger=record.name, message=record.getMessage())
