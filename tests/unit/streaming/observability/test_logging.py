"""What libraries say is passed on, but does not bury our own lines."""

import logging

import pytest
from structlog.testing import capture_logs

from streaming.observability import logging as own
from streaming.observability.logging import _Forward


@pytest.fixture
def library() -> logging.Logger:
    logger = logging.getLogger("kafka.net.test")
    logger.propagate = False
    logger.handlers = [_Forward()]
    return logger


def test_a_line_that_comes_again_and_again_is_shown_once_in_a_while(
    library: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    with capture_logs() as lines:
        for attempt in range(200):
            library.error("Connection failed: %s", attempt)
        library.error("Something else")
        monkeypatch.setattr(own, "REPEAT_S", 0.0)
        library.error("Connection failed: %s", 200)
    assert [(line["message"], line.get("times")) for line in lines] == [
        ("Connection failed: 0", None),
        ("Something else", None),
        ("Connection failed: 200", 199),
    ]
