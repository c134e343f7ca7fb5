"""The one error of the demo: a sentence that says what to do, and where the log is."""

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
