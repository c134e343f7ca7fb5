"""What ends the demo early: an error with a sentence that says what to do, or a signal."""

from pathlib import Path


class DemoError(Exception):
    """The demo cannot go on.

    Parameters
    ----------
    message : str
        One sentence: what happened and what to do.
    log : pathlib.Path, optional
        The log of the process that failed.
    """

    def __init__(self, message: str, log: Path | None = None) -> None:
        super().__init__(message if log is None else f"{message}\nIts log: {log}")
        self.log = log


class Interrupted(BaseException):  # like KeyboardInterrupt it is no error
    """SIGINT or SIGTERM asked for the end; raised so that everything started is stopped on the way out.

    Parameters
    ----------
    number : int
        The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_status = 128 + number
