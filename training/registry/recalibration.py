"""A new release with the models of another: calibration, thresholds and expected loss from recent rows."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from training.data.labelled import labelled_rows
from training.data.row_keys import TransactionKeys
from training.data.split import Split, split_by_protocol
from training.data.transactions import Transactions
from training.errors import DataError
from training.evaluation.decision import decision_costs, fit_decision_rule
from training.evaluation.metrics import evaluate, metric_criteria
from training.evaluation.reference import describe_reference
from training.registry.packages import log_pair, quiet
from training.registry.promotion_check import FITTED_KEYS, Challenger, median_latency
from training.registry.release_document import describe_data, describe_decision, describe_figures
from training.registry.releases import NETWORK, RELEASE, TREES, Registry, Release, translate_registry_errors
from training.registry.training_runs import open_runs, training_tags
from training.reporting.model_card import describe_version, figure_text
from training.scoring.latency import measure_latency
from training.scoring.scorer import ReleaseScorer
from training.settings.load import Settings

FROM_TAG = "recalibrated_from"


def recalibrate(registry: Registry, parent: Release, data: Transactions, settings: Settings) -> Challenger:
    """Fit what decides on rows the models of a release have not seen, and register the result.

    The last or a random share of the rows, as the protocol says, is left out to judge it.

    Raises
    ------
    DataError
        If too few frauds are left that the models were not fitted on.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = registry.fetch(parent, Path(folder))
        unseen = _unseen(data, files)
        # All that is not tested is validation: nothing else is fitted.
        split = split_by_protocol(unseen, settings)
        split = replace(split, validation=np.sort(np.append(split.train, split.validation)))
        scorer = ReleaseScorer(files, threads=settings.threads)
        decided = _refit_decision(scorer, unseen, split, settings)
        test = labelled_rows(unseen, split.test)
        output = scorer.score(test.features).output()
        figures = evaluate(
            {"pair": output},
            test.truth,
            metric_criteria(settings),
            resamples=settings.evaluation.resamples,
            confidence=settings.evaluation.confidence,
            seed=settings.seed,
        )
        about = {"data": describe_data(unseen, split), "metrics": describe_figures(figures)}
        document = scorer.document | decided | about | {FROM_TAG: parent.number}
        _add_keys(files, TransactionKeys.of(unseen, split.validation))
        latency = measure_latency(ReleaseScorer(files, threads=1), test.features)
        release = _register(registry, parent, files, document, unseen, settings, figures)
    error = figures["pair"]["calibration_error"].value
    return Challenger(release, unseen, split, settings, test, output, error, median_latency(latency))


def _refit_decision(
    scorer: ReleaseScorer, data: Transactions, split: Split, settings: Settings
) -> dict[str, Any]:
    """Fit what decides on the validation part, let `scorer` decide by it, and return its description."""
    rows = labelled_rows(data, split.validation)
    scored = scorer.score(rows.features)
    costs = decision_costs(settings.decision)
    scorer.rule = fit_decision_rule(scored.neural_net, scored.xgboost, rows.truth, costs)
    probability = scorer.rule.calibration.probability(scored.neural_net, scored.xgboost)
    scores = {
        "neural_net": scored.neural_net.astype(np.float64),
        "xgboost": scored.xgboost.astype(np.float64),
    }
    is_random = split.protocol == "random"
    share = float(rows.truth.weight.sum() / data.sample_weight.sum()) if is_random else 1.0
    reference = describe_reference(rows, scores, probability, share)
    return describe_decision(scorer.rule, settings, data.prevalence, reference)


def _add_keys(files: Path, keys: TransactionKeys) -> None:
    """Let the release say that it was fitted on these rows too."""
    path = files / FITTED_KEYS
    known = TransactionKeys.load(path).joined(keys) if path.is_file() else keys
    known.save(path)


def _unseen(data: Transactions, files: Path) -> Transactions:
    """Return the rows the models were not fitted on: of others they are too sure."""
    everything = np.arange(len(data))
    if (files / FITTED_KEYS).is_file():
        known = TransactionKeys.load(files / FITTED_KEYS)
        everything = everything[~TransactionKeys.of(data, everything).found_in(known)]
    if not len(everything):
        raise DataError(f"{data.name}: the models were fitted on all of its rows; give rows that are newer")
    ids = data.transaction_id
    return replace(
        data,
        features=data.features[everything],
        label=data.required_label[everything],
        sample_weight=data.sample_weight[everything],
        transaction_id=None if ids is None else ids[everything],
    )


def _register(
    registry: Registry,
    parent: Release,
    files: Path,
    document: dict[str, Any],
    data: Transactions,
    settings: Settings,
    figures: Any,  # noqa: ANN401
) -> Release:
    origin = {FROM_TAG: parent.number}
    with open_runs(registry, data, settings, "recalibrate", origin, " recalibrated") as runs:
        run = runs["pair"]
        document |= {"training_run_id": run.id, "trained_at": runs.started.isoformat(timespec="seconds")}
        (files / "release.json").write_text(json.dumps(document, indent=2), encoding="utf-8")
        run.parameters({f"decision.{key}": value for key, value in settings.decision.model_dump().items()})
        run.figures(figures["pair"])
        run.dataset(data.name, data.fingerprint, str(settings.data or data.name), document["data"])
        run.text(settings.model_dump_json(indent=2, exclude={"tracking_uri"}), "settings.json")
        carried = files.parent / "carried"
        carried.mkdir()
        for file in files.iterdir():
            if file.is_file():
                shutil.copy(file, carried)
        with translate_registry_errors(registry.tracking_uri), quiet():
            uri = log_pair(run.id, carried)
            precision = figure_text("average_precision", figures["pair"]["average_precision"])
            versions = {"network_version": parent.network_version, "xgboost_version": parent.trees_version}
            about = f"release {parent.number} recalibrated on {data.name}"
            tags = training_tags(data, settings) | origin | versions | {"average_precision": precision}
            number = registry.register(RELEASE, uri, run.id, tags, describe_version(figures["pair"], about))
        run.rename(f"release {number}")
        models = f"{NETWORK} {parent.network_version}, {TREES} {parent.trees_version}"
        earlier = f"[Release {parent.number}]({run.link.removesuffix(run.id)}{parent.run_id})"
        note = f"{earlier} with calibration and thresholds of {data.name}; models as before: {models}."
        run.tags({"release": number, "mlflow.note.content": note})
    return registry.release(number)
