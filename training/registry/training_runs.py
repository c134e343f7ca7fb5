"""The MLflow runs of one training: open while it fits, closed by how it ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType

from training.data.split import split_key
from training.data.transactions import Transactions
from training.models.validation import EpochReport
from training.registry.recipe import recipe_key
from training.registry.releases import NETWORK, RELEASE, TREES, Registry
from training.registry.runs import Run
from training.settings.load import Settings
from training.termination import stop_deferred

EXPERIMENTS = {"pair": RELEASE, "neural_net": NETWORK, "xgboost": TREES}
# What distinguishes the runs of one training by name.
LABELS = {"pair": "", "neural_net": " network", "xgboost": " XGBoost"}
# Steps that are sent at once: a boosting round takes less time than a request.
STEPS_PER_REQUEST = {"neural_net": 1, "xgboost": 25}


class TrainingRuns:
    """A parent run for the release, and one for each model from when its fit begins."""

    def __init__(
        self, registry: Registry, settings: Settings, tags: Mapping[str, str], label: str = ""
    ) -> None:
        self.registry = registry
        self._label = label
        self.started = datetime.now(UTC)
        self._settings = settings
        self._tags = dict(tags)
        self._logged: dict[str, int] = {}
        self._waiting: dict[str, list[Mapping[str, float]]] = {}
        self._runs: dict[str, Run] = {}

    def __getitem__(self, model: str) -> Run:
        if model not in self._runs:
            with stop_deferred():  # a run that MLflow has opened must be known here: it is closed at the end
                self._runs[model] = self._open(model)
        return self._runs[model]

    def items(self) -> Iterator[tuple[str, Run]]:
        """Yield each model, the pair first, with its run."""
        for model in EXPERIMENTS:
            yield model, self[model]

    def reports(self) -> dict[str, EpochReport]:
        """Return what fitting calls after each epoch or boosting round: curves grow while it works."""
        return {model: partial(self._report, model) for model in STEPS_PER_REQUEST}

    def complete_history(self, model: str, history: Sequence[Mapping[str, float]]) -> None:
        """Record the steps of a history that were not reported while it grew."""
        waiting = self._waiting.pop(model, [])
        done = self._logged.get(model, 0)
        assert len(waiting) + done <= len(history)
        self._log(model, history[done:])

    def end(self, status: str) -> None:
        """Close all runs that are open: FINISHED, FAILED or KILLED; curves keep what was reported."""
        with stop_deferred():
            for model, waiting in self._waiting.items():
                self._log(model, waiting)
            for run in self._runs.values():
                run.end(status)

    def _open(self, model: str) -> Run:
        name = f"{self.started:%Y-%m-%d %H:%M:%S}{LABELS[model]}{self._label}"
        tags = {**self._tags, "model": LABELS[model].strip() or "both"}
        if model != "pair":
            tags["mlflow.parentRunId"] = self["pair"].id
        return Run(self.registry, EXPERIMENTS[model], name, tags)

    def _report(self, model: str, _number: int, figures: Mapping[str, float]) -> None:
        self._waiting.setdefault(model, []).append(figures)
        if len(self._waiting[model]) >= STEPS_PER_REQUEST[model]:
            self._log(model, self._waiting.pop(model))

    def _log(self, model: str, history: Sequence[Mapping[str, float]]) -> None:
        done = self._logged.get(model, 0)
        # The step size of the trees stays the same: beside the network's it is a curve as well.
        steady = {"train_learning_rate": self._settings.xgboost.learning_rate}
        self[model].history([{**steady, **figures} for figures in history], first_step=done)
        self._logged[model] = done + len(history)


@contextmanager
def open_runs(
    registry: Registry,
    data: Transactions,
    settings: Settings,
    command: str,
    tags: Mapping[str, str] = MappingProxyType({}),
    label: str = "",
) -> Iterator[TrainingRuns]:
    """Open the runs of a training; whatever ends it, none stays open.

    Parameters
    ----------
    command : str
        The command that makes them.
    tags : mapping of str to str
        Further tags of the runs.
    label : str
        What their names end with.
    """
    everything = {**training_tags(data, settings), **_source_tags(command), **tags}
    runs = TrainingRuns(registry, settings, everything, label)
    try:
        runs["pair"].check_artifacts()
        yield runs
    except BaseException as error:
        runs.end("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    runs.end("FINISHED")


def training_tags(data: Transactions, settings: Settings) -> dict[str, str]:
    """Return what tells one training from another: on its runs and its versions."""
    return {
        "data": data.name,
        "fingerprint": data.fingerprint,
        "protocol": settings.protocol,
        "seed": str(settings.seed),
        "split": split_key(settings),
        "recipe": recipe_key(settings),
    }


def _source_tags(command: str) -> dict[str, str]:
    """Return tags that say which command a run comes from, as MLflow's UI shows it."""
    return {"mlflow.source.name": f"python -m training {command}", "mlflow.source.type": "LOCAL"}
