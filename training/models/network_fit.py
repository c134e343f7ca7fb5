"""The network's training loop: plain PyTorch on tensors, no loader."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.data.labelled import GroundTruth, LabelledRows
from training.errors import SettingsError
from training.evaluation.metrics import Criteria, ModelOutput, at_best_f1, measure
from training.models.network import FraudNetwork, Preprocessing, dense_layers
from training.models.sampling import prior_shift, undersample
from training.models.validation import EpochReport, History, sample_validation_rows
from training.settings.sections import NetworkSettings

# Rows scored at once: activations of the widest layer stay within a few MB.
SCORED_ROWS = 4096


@dataclass(frozen=True, eq=False)
class FittedNetwork:
    """The network as it is stored, with how it came about.

    Attributes
    ----------
    module : FraudNetwork
        Evaluation mode, no gradients, on the CPU.
    history : list of dict
        Figures of each epoch of the first member, on validation rows.
    best_epoch : int
        0-based epoch of `history` that was kept.
    schedules : tuple of tuple of float
        Learning rates of the kept epochs of each member: what a refit repeats.
    seconds, rows
        Wall time, and rows seen in an epoch.
    """

    module: FraudNetwork
    history: History
    best_epoch: int
    schedules: tuple[tuple[float, ...], ...]
    seconds: float
    rows: int


def pick_device(wanted: str) -> torch.device:
    """Return the device the network trains on; ``auto`` takes a GPU when there is one."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise SettingsError("device is cuda, but this PyTorch finds no CUDA device: set auto or cpu")
    return torch.device(wanted)


def fit_network(
    train: LabelledRows,
    validation: LabelledRows,
    settings: NetworkSettings,
    *,
    seed: int,
    device: torch.device,
    progress: EpochReport,
) -> FittedNetwork:
    """Fit the network on undersampled training rows; keep the epoch with the least validation loss.

    The loss sees every row; the average precision of some 70 validation frauds peaks by chance.
    """
    started = time.perf_counter()
    batch = _SampledTensors.of(train, settings, seed, device)
    monitor = sample_validation_rows(validation, settings.monitor_rows, seed)
    watched = batch.inputs_of(monitor.features)
    nets, histories, best = [], [], []
    for member in range(settings.members):
        loop = _MemberTrainer(batch, settings, seed + 1000 * member)
        history, best_epoch = loop.run(
            lambda net: _validation_metrics(net, watched, monitor.truth, batch.shift), progress
        )
        nets.append(loop.net)
        histories.append(history)
        best.append(best_epoch)
    schedules = (
        tuple(row["train_learning_rate"] for row in history[: last + 1])
        for history, last in zip(histories, best, strict=True)
    )
    seconds = time.perf_counter() - started
    return FittedNetwork(
        batch.stored(nets), histories[0], best[0], tuple(schedules), seconds, len(batch.label)
    )


def refit_network(
    everything: LabelledRows,
    fitted: FittedNetwork,
    settings: NetworkSettings,
    *,
    seed: int,
    device: torch.device,
) -> FittedNetwork:
    """Fit again on more rows, for as many epochs and with the learning rates that were found best."""
    started = time.perf_counter()
    batch = _SampledTensors.of(everything, settings, seed, device)
    nets = []
    for member, schedule in enumerate(fitted.schedules):
        loop = _MemberTrainer(batch, settings, seed + 1000 * member)
        loop.repeat(schedule)
        nets.append(loop.net)
    seconds = fitted.seconds + time.perf_counter() - started
    return FittedNetwork(
        batch.stored(nets), fitted.history, fitted.best_epoch, fitted.schedules, seconds, len(batch.label)
    )


@dataclass(frozen=True, eq=False)
class _SampledTensors:
    """The sampled rows as tensors on the training device, and what undoes the sampling."""

    preprocessing: Preprocessing
    device: torch.device
    inputs: Tensor  # [m, 30] standardised
    label: Tensor  # [m]
    weight: Tensor  # [m]
    shift: float

    @classmethod
    def of(
        cls, part: LabelledRows, settings: NetworkSettings, seed: int, device: torch.device
    ) -> _SampledTensors:
        truth = part.truth
        rng = np.random.default_rng(seed)
        sample = undersample(truth.label, truth.weight, settings.genuine_per_fraud, rng)
        preprocessing = Preprocessing(part.features.shape[1])
        preprocessing.fit(torch.from_numpy(part.features), torch.from_numpy(truth.weight))
        return cls(
            preprocessing,
            device,
            preprocessing(torch.from_numpy(part.features[sample.rows])).to(device),
            torch.from_numpy(truth.label[sample.rows].astype(np.float32)).to(device),
            torch.from_numpy(sample.weight.astype(np.float32)).to(device),
            prior_shift(sample.kept_share, settings.positive_weight),
        )

    def inputs_of(self, features: NDArray[np.float32]) -> Tensor:
        inputs: Tensor = self.preprocessing(torch.from_numpy(features))
        return inputs.to(self.device)

    def stored(self, nets: Sequence[nn.Sequential]) -> FraudNetwork:
        module = FraudNetwork(self.preprocessing, [net.cpu() for net in nets], self.shift)
        return module.eval().requires_grad_(False)


class _MemberTrainer:
    """One member's epochs."""

    def __init__(self, batch: _SampledTensors, settings: NetworkSettings, seed: int) -> None:
        torch.manual_seed(seed)
        self._rng = np.random.default_rng(seed)
        self.batch, self.settings = batch, settings
        self._net = dense_layers(batch.inputs.shape[1], settings.hidden, settings.dropout).to(batch.device)
        average = get_ema_multi_avg_fn(settings.averaging)  # type: ignore[no-untyped-call]
        self._average = AveragedModel(self._net, multi_avg_fn=average, use_buffers=True)
        self._optimizer = torch.optim.Adam(
            self._net.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        weight = torch.tensor(settings.positive_weight, device=batch.device)
        self._loss = nn.BCEWithLogitsLoss(reduction="none", pos_weight=weight)

    @property
    def net(self) -> nn.Sequential:
        """The running mean of the weights: steadier from epoch to epoch than the weights themselves."""
        mean = self._average.module
        assert isinstance(mean, nn.Sequential)
        return mean

    def run(
        self, watch: Callable[[nn.Module], dict[str, float]], progress: EpochReport
    ) -> tuple[History, int]:
        """Train until validation loss stalls, load the best epoch back; return the history and that epoch."""
        settings = self.settings
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self._optimizer,
            factor=settings.plateau_factor,
            patience=settings.plateau_patience_epochs,
        )
        history: History = []
        best, best_epoch, best_state = math.inf, 0, _copy_state(self.net)
        for epoch in range(settings.epochs):
            learning_rate = float(self._optimizer.param_groups[0]["lr"])
            history.append(
                {"train_fitting_loss": self._epoch(), "train_learning_rate": learning_rate, **watch(self.net)}
            )
            progress(epoch + 1, history[-1])
            loss = history[-1]["validation_loss"]
            scheduler.step(loss)
            if loss < best:
                best, best_epoch, best_state = loss, epoch, _copy_state(self.net)
            if epoch - best_epoch >= settings.stopping_patience_epochs:
                break
        self.net.load_state_dict(best_state)
        return history, best_epoch

    def repeat(self, learning_rates: Sequence[float]) -> None:
        """Train one epoch with each learning rate."""
        for learning_rate in learning_rates:
            self._optimizer.param_groups[0]["lr"] = learning_rate
            self._epoch()

    def _epoch(self) -> float:
        self._net.train()
        batch = self.batch
        total = torch.zeros((), device=batch.device)
        order = torch.randperm(len(batch.label)).to(batch.device)
        for rows in torch.split(order, self.settings.batch_rows):
            if len(rows) < 2:  # BatchNorm cannot estimate a variance from one row
                continue
            inputs, label, weight = self._mixed(rows)
            loss = (self._loss(self._net(inputs).squeeze(1), label) * weight).mean()
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
            self._average.update_parameters(self._net)
            total += loss.detach() * len(rows)
        return float(total) / len(batch.label)

    def _mixed(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return inputs, labels and weights of rows, each mixed with another by one share for all.

        The loss is linear in the label, so that of a mixed row is the mean of the losses of its two labels.
        """
        batch, alpha = self.batch, self.settings.mixup
        inputs, label, weight = batch.inputs[rows], batch.label[rows], batch.weight[rows]
        if not alpha:
            return inputs, label, weight
        share = float(self._rng.beta(alpha, alpha))
        other = torch.randperm(len(rows)).to(batch.device)
        first, second = share * weight, (1 - share) * weight[other]
        return (
            share * inputs + (1 - share) * inputs[other],
            (first * label + second * label[other]) / (first + second),
            first + second,
        )


@torch.no_grad()
def _validation_metrics(net: nn.Module, inputs: Tensor, truth: GroundTruth, shift: float) -> dict[str, float]:
    """Return the validation figures of a net that is still in training."""
    net.eval()
    logits = torch.cat([net(part).squeeze(1) for part in torch.split(inputs, SCORED_ROWS)])
    log_odds = logits.double().cpu().numpy() + shift
    score = 1 / (1 + np.exp(-log_odds))
    loss = np.logaddexp(0, np.where(truth.label == 1, -log_odds, log_odds))
    ranking = measure(ModelOutput(score, score >= 0.5), truth, Criteria())
    figures = {
        "loss": float(np.average(loss, weights=truth.weight)),
        **{name: ranking[name] for name in ("auc", "average_precision")},
        **at_best_f1(score, truth.label == 1, truth.weight),
    }
    return {f"validation_{name}": value for name, value in figures.items()}


def _copy_state(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in net.state_dict().items()}


@torch.no_grad()
def network_scores(network: nn.Module, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the network's scores [n] of raw features [n, 30]."""
    batches = torch.split(torch.from_numpy(features), SCORED_ROWS)
    return np.concatenate([network(batch).numpy() for batch in batches])
