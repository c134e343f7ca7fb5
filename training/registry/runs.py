"""Runs in MLflow, written in few requests: a SQLite commit costs more than what it holds."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from training.errors import RegistryError
from training.evaluation.metrics import Estimate
from training.registry import saved_view
from training.registry.releases import RELEASE, Registry, mask_credentials, translate_registry_errors
from training.registry.relocation import artifact_folder
from training.termination import stop_deferred

METRICS_PER_REQUEST = 900  # MLflow takes at most 1,000
GROUPS = ("fit", "latency")
# The UI sorts its sections by name: curves of training come first, single figures after them.
CURVES, CURVE_GROUP = ("train", "validation"), "curve"
# What the UI says about each experiment.
EXPERIMENT_NOTES = {
    "fraud-detector": "A run for each release: both models, what decides, figures of the test part, the "
    "gate's result. Its description links the runs of its models.",
    "fraud-neural-net": "The network of each release: curves while it fits, figures of the test part.",
    "fraud-xgboost": "The trees of each release: curves while they fit, figures of the test part.",
}


class Run:
    """One run, logged to in batches."""

    def __init__(self, registry: Registry, experiment: str, name: str, tags: Mapping[str, str]) -> None:
        self._client = registry.client
        self._uri = registry.tracking_uri
        with translate_registry_errors(self._uri):
            experiment_id = _experiment_id(registry, experiment)
            info = self._client.create_run(experiment_id, tags=dict(tags), run_name=name).info
        self.id, self.artifact_uri = str(info.run_id), str(info.artifact_uri)
        self.link = f"#/experiments/{experiment_id}/runs/{self.id}"

    def parameters(self, values: Mapping[str, object]) -> None:
        """Record settings."""
        from mlflow.entities import Param

        with translate_registry_errors(self._uri):
            self._client.log_batch(self.id, params=[Param(key, str(value)) for key, value in values.items()])

    def tags(self, values: Mapping[str, str]) -> None:
        """Record what the run is known by."""
        from mlflow.entities import RunTag

        with translate_registry_errors(self._uri):
            self._client.log_batch(self.id, tags=[RunTag(key, value) for key, value in values.items()])

    def history(self, history: Sequence[Mapping[str, float]], first_step: int = 0) -> None:
        """Record a curve for every figure, one step per entry, with the present time."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(_grouped(key), value, now, first_step + step)
            for step, row in enumerate(history)
            for key, value in row.items()
        ]
        with translate_registry_errors(self._uri):
            for start in range(0, len(metrics), METRICS_PER_REQUEST):
                self._client.log_batch(self.id, metrics=metrics[start : start + METRICS_PER_REQUEST])

    def figures(self, figures: Mapping[str, Estimate], group: str = "test") -> None:
        """Record figures as metrics, and with the ends of their intervals as a table."""
        values = {f"{group}/{name}": figure.value for name, figure in figures.items()}
        first = {name: figures[name].value for name in saved_view.FIGURES if name in figures}
        self.history([values | first])
        lines = [f"{name},{one.value!r},{one.low!r},{one.high!r}" for name, one in figures.items()]
        self.text("\n".join(["figure,value,low,high", *lines, ""]), f"{group}_figures.csv")

    def dataset(self, name: str, fingerprint: str, source: str, profile: Mapping[str, object]) -> None:
        """Record which data the run saw; the same fingerprint is the same data set to MLflow."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=name,
            digest=fingerprint[:16],
            source_type="local",
            source=json.dumps({"uri": source}),
            profile=json.dumps(dict(profile)),
        )
        tags = [InputTag("mlflow.data.context", "training, validation and test")]
        with translate_registry_errors(self._uri):
            self._client.log_inputs(self.id, [DatasetInput(dataset, tags)])

    def files(self, folder: Path, path: str | None = None) -> None:
        """Store all files of a folder as artefacts."""
        with translate_registry_errors(self._uri):
            self._client.log_artifacts(self.id, str(folder), path)

    def text(self, text: str, path: str) -> None:
        """Store a text as an artefact."""
        with translate_registry_errors(self._uri):
            self._client.log_text(self.id, text, path)

    def check_artifacts(self) -> None:
        """Write a first file, so that a store that cannot be written is noticed before anything is fitted.

        Raises
        ------
        RegistryError
            Naming the artefact location and why it cannot be written from here.
        """
        try:
            with stop_deferred():
                self._client.log_text(self.id, "This run was opened here.\n", "opened.txt")
        except ModuleNotFoundError:
            with translate_registry_errors(self.artifact_uri):
                raise
        except Exception as error:  # every store has its own
            raise RegistryError(
                f"the artefact location {mask_credentials(self.artifact_uri)} cannot be written from here: "
                f"{mask_credentials(' '.join(str(error).split()))[:200]}"
            ) from error

    def rename(self, name: str) -> None:
        """Give the run another name."""
        with translate_registry_errors(self._uri):
            self._client.update_run(self.id, name=name)

    def end(self, status: str = "FINISHED") -> None:
        """Close the run: FINISHED, FAILED or KILLED."""
        with translate_registry_errors(self._uri):
            self._client.set_terminated(self.id, status)


def _grouped(metric: str) -> str:
    """Return the metric's name in MLflow: the UI shows a section for what stands before the slash."""
    group, _, rest = metric.partition("_")
    if group in CURVES:
        return f"{CURVE_GROUP}/{metric}"
    return f"{group}/{rest}" if group in GROUPS else metric


def _experiment_id(registry: Registry, name: str) -> str:
    found = registry.client.get_experiment_by_name(name)
    if found is None:
        # Artefacts lie beside a SQLite file; any other server decides for itself.
        folder = artifact_folder(registry.tracking_uri)
        location = None if folder is None else (folder / name).as_uri()
        # Without its kind the UI opens an experiment with the tabs for language models.
        tags = {
            "mlflow.experimentKind": "custom_model_development",
            "mlflow.note.content": EXPERIMENT_NOTES[name],
        }
        created = str(registry.client.create_experiment(name, artifact_location=location, tags=tags))
        _offer_view(registry, name, created, {})
        return created
    if found.lifecycle_stage != "active":
        raise RegistryError(
            f"the MLflow experiment {name} was deleted: "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}` brings it back"
        )
    _offer_view(registry, name, str(found.experiment_id), found.tags)
    return str(found.experiment_id)


def _offer_view(registry: Registry, name: str, experiment_id: str, tags: Mapping[str, str]) -> None:
    """Let the UI show releases by what they are compared by, in experiments of earlier versions too."""
    if name != RELEASE or tags.get(saved_view.TAG) == saved_view.view_state():
        return
    # The UI shows one line at first, so the link comes first.
    note = f"[Compare the releases]({saved_view.view_link(experiment_id)}). {EXPERIMENT_NOTES[name]}"
    registry.client.set_experiment_tag(experiment_id, saved_view.TAG, saved_view.view_state())
    registry.client.set_experiment_tag(experiment_id, "mlflow.note.content", note)
