"""Both models and their pair against the original recipe and two common baselines, over repeated splits.

    python -m benchmarks.quality --data FILE        quality: a table, benchmarks/results/quality.json and .png
    python -m benchmarks.quality --data FILE --protocol rolling     the same, on windows of the time after
    python -m benchmarks.quality --data FILE --go-on                go on with a run that was interrupted
    python -m benchmarks.quality --speed            fit time on 285,000 simulated rows, beside the original's

A split is by default random within each class and keeps exact repeats on one side. With ``--protocol
rolling`` each of six windows of the stream is tested by models that know only what came before it. The
originals and the baselines are fitted on every row outside the test part, which is what our models may use;
their scores are corrected for the known thinning of genuine rows before calibration is measured.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from benchmarks.original import THRESHOLD, Scorer, fit_original_network, fit_original_trees
from benchmarks.quality_report import (
    BASELINES,
    MIN_PRECISION,
    ORIGINALS,
    OURS,
    RESULTS,
    Floats,
    Outcome,
    differences,
    machine,
    plot,
    print_quality,
    print_speed,
    save,
    targets,
)
from training.console import ProgressConsole
from training.data.labelled import GroundTruth, LabelledRows, labelled_rows
from training.data.source import apply_genuine_weight, read_data
from training.data.split import Split, split_random, split_rolling
from training.data.transactions import Transactions
from training.evaluation.log_odds import logit, sigmoid
from training.evaluation.metrics import ModelOutput, measure, metric_criteria
from training.models.training import FittedPair
from training.models.training import fit as fit_pair
from training.settings.load import Settings, load_settings

PARTS = {"validation_fraction": 0.15, "test_fraction": 0.15}  # 74 of the subset's 492 frauds are tested
SIMULATED_ROWS = 285_000


def hindsight(score: Floats, truth: GroundTruth, review_cost: float) -> dict[str, float]:
    """Return what a threshold chosen on the test part itself would reach; no deployed threshold can.

    `best_recall` is the recall at a precision of at least 0.6, `best_cost_saved` the share of the amount at
    risk that the cheapest threshold saves.
    """
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.diff(score[order]) != 0, True)  # a threshold cannot part equal scores
    fraud, weight = truth.label[order] == 1, truth.weight[order]
    alarms, caught = np.cumsum(weight)[ends], np.cumsum(weight * fraud)[ends]
    amount = weight * fraud * truth.amount[order]
    saved = np.cumsum(amount)[ends] - review_cost * alarms
    precise = caught >= MIN_PRECISION * alarms
    return {
        "best_recall": float(np.max(caught * precise) / caught[-1]),
        "best_cost_saved": float(max(0.0, saved.max()) / amount.sum()),
    }


def baselines(train: LabelledRows, seed: int) -> Iterator[tuple[str, Scorer]]:
    """Yield the two scikit-learn baselines, fitted with their defaults."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    makers = (
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000)),
        HistGradientBoostingClassifier(random_state=seed),
    )
    for name, model in zip(BASELINES, makers, strict=True):
        model.fit(train.features, train.truth.label)
        yield name, partial(_fraud_column, model)


class _Classifier(Protocol):
    def predict_proba(self, features: NDArray[np.float32], /) -> Floats: ...


def _fraud_column(model: _Classifier, rows: NDArray[np.float32]) -> Floats:
    return np.asarray(model.predict_proba(rows)[:, 1], np.float64)


def run_split(
    data: Transactions, split: Split, settings: Settings, seed: int, note: Callable[[str], None]
) -> Outcome:
    """Fit everything on one split and measure it on the test part."""
    test = labelled_rows(data, split.test)
    outputs: dict[str, ModelOutput] = {}
    seconds: dict[str, float] = {}
    rarity = math.log(test.truth.weight[test.truth.label == 0].mean())  # a fraud stands for itself

    def keep(name: str, score: Scorer) -> None:
        scores = score(test.features)
        outputs[name] = ModelOutput(sigmoid(logit(scores) - rarity), scores >= THRESHOLD)

    train = labelled_rows(data, _fitted_rows(split))
    for name, scorer, spent in _fit_originals(train, seed, settings.threads, note):
        keep(name, scorer)
        seconds[name] = spent
    for name, scorer in baselines(train, seed):
        keep(name, scorer)
    note("our pair")
    started = time.perf_counter()
    outputs |= dict(zip(OURS, _our_outputs(_fit_ours(data, split, settings), test), strict=True))
    seconds["our pair"] = time.perf_counter() - started
    figures = {name: _figures(item, test.truth, settings) for name, item in outputs.items()}
    return Outcome(
        seed, int(test.truth.label.sum()), len(test.features) / len(train.features), figures, seconds
    )


def splits_of(data: Transactions, protocol: str, count: int, seed: int) -> Iterator[tuple[int, Split]]:
    """Yield `count` numbered splits of the protocol."""
    if protocol == "rolling":
        yield from enumerate(split_rolling(data, windows=count))
    else:
        for number in range(seed, seed + count):
            yield number, split_random(data, seed=number, **PARTS)


def _fitted_rows(split: Split) -> NDArray[np.intp]:
    return np.sort(np.concatenate([split.train, split.validation]))


def _fit_originals(
    train: LabelledRows, seed: int, threads: int, note: Callable[[str], None]
) -> Iterator[tuple[str, Scorer, float]]:
    makers: tuple[Callable[[], Scorer], ...] = (
        lambda: fit_original_network(train.features, train.truth.label, seed=seed),
        lambda: fit_original_trees(train.features, train.truth.label, seed=seed, threads=threads),
    )
    for name, fit in zip(ORIGINALS, makers, strict=True):
        note(name)
        started = time.perf_counter()
        yield name, fit(), time.perf_counter() - started


def _fit_ours(data: Transactions, split: Split, settings: Settings) -> FittedPair:
    return fit_pair(data, split, settings, ProgressConsole(Console(quiet=True)))


def _our_outputs(fitted: FittedPair, test: LabelledRows) -> list[ModelOutput]:
    outputs = fitted.outputs(test.features)
    return [outputs[name] for name in ("neural_net", "xgboost", "pair")]


def _figures(output: ModelOutput, truth: GroundTruth, settings: Settings) -> dict[str, float]:
    measured = measure(output, truth, metric_criteria(settings))
    return {
        **measured,
        **hindsight(output.score, truth, settings.decision.review_cost),
        "tail_error": tail_error(output.score, truth),
        "false_alarm_rows": float((output.alarm & (truth.label == 0)).sum()),
    }


def tail_error(probability: Floats, truth: GroundTruth) -> float:
    """Return how many frauds the probabilities misplace, as a share of all: an error that sees the tail.

    Frauds expected and seen are compared in each decade of probability from 1e-4 to 1; the usual error in
    equally full bins weighs transactions, nearly all of which are as good as certain.
    """
    decade = np.digitize(np.log10(np.maximum(probability, 1e-12)), [-4, -3, -2, -1])
    expected = np.bincount(decade, truth.weight * probability, 5)
    seen = np.bincount(decade, truth.weight * truth.label, 5)
    return float(np.abs(expected - seen).sum() / seen.sum())


def load(settings: Settings) -> Transactions:
    """Return the file's transactions, else simulated ones, thinned like the subset so that it ends soon."""
    if settings.data is not None:
        return read_data(settings, ProgressConsole(Console(stderr=True)))
    from training.data.simulate import simulate
    from training.data.transactions import from_frame

    frauds, genuine = 492, 18_809
    frame = simulate(frauds + genuine, settings.seed, prevalence=frauds / (frauds + genuine))
    return apply_genuine_weight(from_frame(frame, "simulated transactions"), 284_315 / genuine)


def compare_quality(
    console: Console, settings: Settings, protocol: str, splits: int, seed: int, command: str, *, go_on: bool
) -> None:
    """Run the splits, print and save what they show; saved after each, so that a run can go on."""
    data = load(settings)
    name = "quality.json" if protocol == "random" else "quality-rolling.json"
    document: dict[str, Any] = {
        "command": command,
        "machine": machine(),
        "data": f"{data.name}, {len(data):,} rows, {data.frauds} frauds, {protocol} splits",
        "fingerprint": data.fingerprint,
        "settings": settings.model_dump(mode="json", exclude={"data", "known_samples", "tracking_uri"}),
    }
    measured = read_outcomes(RESULTS / name, document) if go_on else {}
    outcomes: list[Outcome] = []
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("splits", total=splits)
        for number, split in splits_of(data, protocol, splits, seed):

            def note(text: str, number: int = number) -> None:
                progress.update(task, description=f"split {number}: {text}")

            outcome = measured.get(number) or run_split(data, split, settings, number, note)
            outcomes.append(outcome)
            progress.advance(task)
            if not console.is_terminal:
                console.print(_in_short(outcome), highlight=False)
            gaps = differences(outcomes)
            document |= {
                "differences": gaps,
                "targets": [
                    {"target": t, "value": v, "reached": bool(r)}
                    for t, v, r in targets(outcomes, gaps, protocol)
                ],
                "splits": [asdict(one) for one in outcomes],
            }
            path = save(document, name)
    plot(outcomes, path.with_suffix(".png"), str(document["data"]))
    print_quality(console, outcomes, document)
    console.print(f"{document['machine']}\n{command}\n{path}, {path.with_suffix('.png')}", highlight=False)


def read_outcomes(path: Path, document: Mapping[str, Any]) -> dict[int, Outcome]:
    """Return what an earlier run on the same data with the same settings has measured, by split."""
    if not path.is_file():
        return {}
    earlier = json.loads(path.read_text(encoding="utf-8"))
    if any(earlier[key] != document[key] for key in ("data", "fingerprint", "settings")):
        return {}
    return {split["seed"]: Outcome(**split) for split in earlier["splits"]}


def _in_short(outcome: Outcome) -> str:
    ap = ", ".join(f"{name} {figures['average_precision']:.3f}" for name, figures in outcome.figures.items())
    return f"split {outcome.seed}, average precision: {ap}"


def compare_speed(console: Console, settings: Settings, rounds: int, command: str) -> None:
    """Fit the original and ours on the same simulated rows in turn; print and save seconds.

    Ours includes the second fit with the validation part, calibration and thresholds.
    """
    import torch

    from training.data.simulate import simulate
    from training.data.transactions import from_frame

    data = from_frame(simulate(SIMULATED_ROWS, settings.seed), "simulated transactions")
    split = split_random(data, seed=settings.seed, **PARTS)
    train = labelled_rows(data, split.train)
    torch.set_num_threads(settings.threads)
    makers: dict[str, Callable[[], object]] = {
        ORIGINALS[0]: lambda: fit_original_network(train.features, train.truth.label, seed=settings.seed),
        ORIGINALS[1]: lambda: fit_original_trees(
            train.features, train.truth.label, seed=settings.seed, threads=settings.threads
        ),
        "our pair": lambda: _fit_ours(data, split, settings),
    }
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in makers}
    for _ in range(rounds):
        for name, fit in makers.items():
            spent[name].append(_timed(fit))
    print_speed(console, spent, f"{len(data):,} simulated rows, {data.frauds} frauds, {rounds} round(s)")
    console.print(f"{machine()}\n{command}", highlight=False)
    save(
        {"command": command, "machine": machine(), "rows": len(data), "seconds": spent}, "quality-speed.json"
    )


def _timed(fit: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    fit()
    return time.perf_counter() - wall, time.process_time() - cpu


def main(arguments: Sequence[str]) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="CSV or parquet; none: simulated transactions")
    parser.add_argument("--splits", type=int, help="number of splits (default 10) or windows (6)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first split (default 0)")
    parser.add_argument(
        "--protocol",
        choices=("random", "rolling"),
        default="random",
        help="rolling: windows in order of time",
    )
    parser.add_argument(
        "--go-on",
        action="store_true",
        help="keep the splits an interrupted run on the same data has measured",
    )
    parser.add_argument("--speed", action="store_true", help="measure fit time instead of quality")
    parser.add_argument("--rounds", type=int, default=1, help="rounds of --speed (default 1)")
    wanted = parser.parse_args(arguments)
    chosen = {"data": wanted.data} if wanted.data else {}
    settings = load_settings(chosen)
    console = Console(width=max(Console().width, 130))
    command = " ".join(["python -m benchmarks.quality", *arguments])
    if wanted.speed:
        compare_speed(console, settings, wanted.rounds, command)
    else:
        splits = wanted.splits or (10 if wanted.protocol == "random" else 6)
        compare_quality(console, settings, wanted.protocol, splits, wanted.seed, command, go_on=wanted.go_on)


if __name__ == "__main__":
    main(sys.argv[1:])
