"""Plain training loops: the network on tensors, the trees on a quantile matrix."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.evaluate import Criteria, Judged, Rows, measure
from training.network import FraudNetwork, Preprocessing, dense_layers
from training.sampling import prior_shift, undersample
from training.settings import NetworkSettings, XGBoostSettings

if TYPE_CHECKING:
    import xgboost

# Rows scored at once: activations of the widest layer stay within a few MB.
SCORED_ROWS = 4096

History = list[dict[str, float]]
Progress = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, eq=False)
class Part:
    """Features and rows of one part of the data."""

    features: NDArray[np.float32]  # [n, 30] raw
    rows: Rows


@dataclass(eq=False)
class FittedNetwork:
    """The network as it will be stored, with how it came about."""

    module: FraudNetwork
    history: History = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0
    rows: int = 0


@dataclass(eq=False)
class FittedTrees:
    """The booster, cut at its best tree and prior-corrected, with how it came about."""

    booster: xgboost.Booster
    history: History
    best_tree: int
    seconds: float
    rows: int


def pick_device(wanted: str) -> torch.device:
    """Return the device the network trains on; ``auto`` takes a GPU when there is one."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def fit_network(
    train: Part,
    validation: Part,
    settings: NetworkSettings,
    *,
    seed: int,
    device: torch.device,
    progress: Progress,
) -> FittedNetwork:
    """Fit the network on undersampled training rows; keep the epoch with the best validation AP."""
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    sample = undersample(train.rows.label, train.rows.weight, settings.genuine_per_fraud, rng)
    preprocessing = Preprocessing(train.features.shape[1])
    preprocessing.fit(torch.from_numpy(train.features), torch.from_numpy(train.rows.weight))
    with torch.no_grad():
        inputs = preprocessing(torch.from_numpy(train.features[sample.rows])).to(device)
        monitor = _monitor_rows(validation.rows, settings.monitor_rows, rng)
        monitor_inputs = preprocessing(torch.from_numpy(validation.features[monitor.index])).to(device)
    label = torch.from_numpy(train.rows.label[sample.rows].astype(np.float32)).to(device)
    weight = torch.from_numpy(sample.weight.astype(np.float32)).to(device)

    fitted = FittedNetwork(FraudNetwork(preprocessing, [], 0.0), rows=len(sample.rows))
    shift = prior_shift(sample.kept_share, settings.positive_weight)
    members = []
    for member in range(settings.members):
        torch.manual_seed(seed + 1000 * member)
        net = dense_layers(inputs.shape[1], settings.hidden, settings.dropout).to(device)
        loop = _Loop(net, settings, monitor, monitor_inputs, shift)
        history, best = loop.run(inputs, label, weight, progress)
        members.append(net.cpu().eval())
        if member == 0:
            fitted.history, fitted.best_epoch = history, best
    fitted.module = FraudNetwork(preprocessing, members, shift).eval()
    fitted.module.requires_grad_(False)
    fitted.seconds = time.perf_counter() - started
    return fitted


@dataclass(frozen=True, eq=False)
class _Monitor:
    """Validation rows watched after each epoch: all frauds, and genuine rows that stand for all of them."""

    index: NDArray[np.intp]
    rows: Rows


def _monitor_rows(rows: Rows, genuine_rows: int, rng: np.random.Generator) -> _Monitor:
    genuine, fraud = np.flatnonzero(rows.label == 0), np.flatnonzero(rows.label == 1)
    kept = rng.choice(genuine, genuine_rows, replace=False) if len(genuine) > genuine_rows else genuine
    weight = rows.weight.copy()
    weight[kept] *= weight[genuine].sum() / weight[kept].sum()
    index = np.sort(np.concatenate([kept, fraud]))
    return _Monitor(index, Rows(rows.label[index], weight[index], rows.amount[index]))


class _Loop:
    """One member's epochs."""

    def __init__(
        self,
        net: nn.Module,
        settings: NetworkSettings,
        monitor: _Monitor,
        monitor_inputs: Tensor,
        shift: float,
    ) -> None:
        self.net, self.settings, self.shift = net, settings, shift
        self.monitor, self.monitor_inputs = monitor, monitor_inputs
        self.optimizer = torch.optim.Adam(
            net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer,
            mode="max",
            factor=settings.plateau_factor,
            patience=settings.plateau_patience_epochs,
        )
        self.loss = nn.BCEWithLogitsLoss(
            reduction="none", pos_weight=torch.tensor(settings.positive_weight, device=monitor_inputs.device)
        )

    def run(self, inputs: Tensor, label: Tensor, weight: Tensor, progress: Progress) -> tuple[History, int]:
        """Train until validation stalls, load the best epoch back, return the history and the best epoch."""
        history: History = []
        best, best_epoch = -1.0, 0
        best_state = _copy_state(self.net)
        for epoch in range(self.settings.epochs):
            train_loss = self._epoch(inputs, label, weight)
            figures = {
                "train_loss": train_loss,
                "learning_rate": float(self.optimizer.param_groups[0]["lr"]),
                **self._validate(),
            }
            history.append(figures)
            progress(epoch + 1, figures)
            self.scheduler.step(figures["validation_average_precision"])
            if figures["validation_average_precision"] > best:
                best, best_epoch = figures["validation_average_precision"], epoch
                best_state = _copy_state(self.net)
            if epoch - best_epoch >= self.settings.stopping_patience_epochs:
                break
        self.net.load_state_dict(best_state)
        return history, best_epoch

    def _epoch(self, inputs: Tensor, label: Tensor, weight: Tensor) -> float:
        self.net.train()
        order = torch.randperm(len(inputs)).to(inputs.device)
        total = 0.0
        for rows in torch.split(order, self.settings.batch_rows):
            if len(rows) < 2:  # BatchNorm cannot estimate a variance from one row
                continue
            logits = self.net(inputs[rows]).squeeze(1)
            loss = (self.loss(logits, label[rows]) * weight[rows]).mean()
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            total += float(loss.detach()) * len(rows)
        return total / len(inputs)

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        self.net.eval()
        logits = torch.cat(
            [self.net(part).squeeze(1) for part in torch.split(self.monitor_inputs, SCORED_ROWS)]
        )
        rows = self.monitor.rows
        score = torch.sigmoid(logits.double() + self.shift).cpu().numpy()
        loss = np.logaddexp(
            0, np.where(rows.label == 1, -1, 1) * (logits.double().cpu().numpy() + self.shift)
        )
        figures = measure(Judged(score, score >= 0.5), rows, Criteria())
        kept = ("auc", "average_precision", "f1", "precision", "recall")
        return {
            "validation_loss": float(np.average(loss, weights=rows.weight)),
            **{f"validation_{name}": figures[name] for name in kept},
        }


def _copy_state(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


def fit_trees(
    train: Part, validation: Part, settings: XGBoostSettings, *, seed: int, threads: int
) -> FittedTrees:
    """Fit the trees, stopping when validation AUC stalls; the booster returned ends at its best tree."""
    import xgboost

    started = time.perf_counter()
    sample = undersample(
        train.rows.label, train.rows.weight, settings.genuine_per_fraud, np.random.default_rng(seed)
    )
    matrix = xgboost.QuantileDMatrix(
        train.features[sample.rows], train.rows.label[sample.rows], weight=sample.weight, nthread=threads
    )
    watched = xgboost.QuantileDMatrix(
        validation.features, validation.rows.label, weight=validation.rows.weight, ref=matrix, nthread=threads
    )
    record: dict[str, dict[str, list[float]]] = {}
    booster = xgboost.train(
        _tree_parameters(settings, seed, threads),
        matrix,
        num_boost_round=settings.trees,
        evals=[(matrix, "train"), (watched, "validation")],
        evals_result=record,
        verbose_eval=False,
        callbacks=[
            xgboost.callback.EarlyStopping(
                rounds=settings.stopping_patience_trees,
                metric_name="auc",
                data_name="validation",
                save_best=False,
            )
        ],
    )
    best = booster[: booster.best_iteration + 1]
    shifted = _shift_margin(best, prior_shift(sample.kept_share, settings.scale_pos_weight))
    history = _named_history(record)
    seconds = time.perf_counter() - started
    return FittedTrees(shifted, history, int(booster.best_iteration), seconds, len(sample.rows))


def _named_history(record: Mapping[str, Mapping[str, list[float]]]) -> History:
    """Return XGBoost's record under the names the network's history has, so that MLflow compares them."""
    names = {"logloss": "loss", "aucpr": "average_precision", "auc": "auc"}
    trees = range(len(record["validation"]["auc"]))
    return [
        {
            f"{part}_{names[metric]}": values[i]
            for part, metrics in record.items()
            for metric, values in metrics.items()
        }
        for i in trees
    ]


def _tree_parameters(settings: XGBoostSettings, seed: int, threads: int) -> dict[str, object]:
    return {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "max_depth": settings.max_depth,
        "learning_rate": settings.learning_rate,
        "scale_pos_weight": settings.scale_pos_weight,
        "subsample": settings.subsample,
        "colsample_bytree": settings.column_share,
        "min_child_weight": settings.min_child_weight,
        "reg_lambda": settings.regularisation_l2,
        "base_score": 0.5,
        "eval_metric": ["logloss", "aucpr", "auc"],
        "seed": seed,
        "nthread": threads,
    }


def _shift_margin(booster: xgboost.Booster, shift: float) -> xgboost.Booster:
    """Return the booster with `shift` added to every margin: its base score is the only constant it has."""
    import json

    import xgboost

    document = json.loads(booster.save_raw("json"))
    model = document["learner"]["learner_model_param"]
    before = float(str(model["base_score"]).strip("[]"))
    odds = before / (1 - before) * float(np.exp(shift))
    model["base_score"] = (
        f"[{odds / (1 + odds):.9E}]"
        if str(model["base_score"]).startswith("[")
        else f"{odds / (1 + odds):.9E}"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return xgboost.Booster(model_file=bytearray(json.dumps(document).encode()))


def tree_scores(booster: xgboost.Booster, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the booster's scores [n] of raw features [n, 30]."""
    scores: NDArray[np.float32] = booster.inplace_predict(features, validate_features=False)
    return scores


@torch.no_grad()
def network_scores(network: nn.Module, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the network's scores [n] of raw features [n, 30]."""
    batches = torch.split(torch.from_numpy(features), SCORED_ROWS)
    return np.concatenate([network(batch).numpy() for batch in batches])
