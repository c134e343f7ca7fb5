"""Everything that can go wrong in training, as one tree.

TrainingError                 exit code 1: the command failed
├── DataError                 the rows cannot be used
│   ├── BadFileError          a file's content, named by column and row
│   └── FetchError            the public copy could not be fetched
├── RegistryError             MLflow is down or locked, or lacks what was asked for
│   ├── NoSuchVersionError    a run or version was deleted
│   └── LostFilesError        a version is registered, its files are gone
├── StoreError                the BentoML store lacks a model, or holds another than expected
├── LiveComparisonError       the monitor's figures cannot be read
├── GateRefusedError          exit code 3: the gate refuses, the release stays challenger
├── SparkError                Spark could not be started, or gave up a job
├── OutputError               a result could not be written, such as to a full disk
└── UsageError                exit code 2: wrong usage or settings
    ├── SettingsError         a setting is unknown or out of range
    └── NoSuchFileError       the path names nothing that could be read

A message is one sentence that says what to do; it never repeats a value of a transaction.
"""


class TrainingError(Exception):
    """Base of all errors a command reports without a traceback; carries the exit code."""

    exit_code = 1


class DataError(TrainingError):
    """The rows cannot be used for what was asked, such as too few frauds to split."""


class BadFileError(DataError):
    """A data file breaks the contract; the message names the file, the column and the 1-based data row."""


class FetchError(DataError):
    """The public copy of the data could not be fetched, or is not what was expected."""


class RegistryError(TrainingError):
    """MLflow is down or locked, or has no such run, version or alias."""


class NoSuchVersionError(RegistryError):
    """MLflow has no such run, version or alias any more."""


class LostFilesError(RegistryError):
    """A version is registered, but its files are no longer where they were stored."""


class StoreError(TrainingError):
    """The BentoML store lacks a model, or the stored one does not score like the trained one."""


class LiveComparisonError(TrainingError):
    """The monitor's figures, which the gate is to ask, cannot be read."""


class GateRefusedError(TrainingError):
    """The challenger is not good, calibrated or fast enough to become champion, or cannot be judged.

    A result, not a failure: running the same command again gives the same answer.
    """

    exit_code = 3


class SparkError(TrainingError):
    """Spark could not be started, or gave up a job; what was finished until then stays."""


class OutputError(TrainingError):
    """A result could not be written to the end; nothing stays behind."""


class UsageError(TrainingError):
    """The command was called wrongly, or a setting is out of range."""

    exit_code = 2


class SettingsError(UsageError):
    """A setting is unknown, has the wrong type or is out of range."""


class NoSuchFileError(UsageError):
    """The path is missing, is not a file, or has a suffix that is neither .csv nor .parquet."""
