"""The torch module: raw features in, score out, scaling included; reasons as plain tensor operations."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

SECONDS_PER_DAY = 86_400.0
TIME, AMOUNT = 0, 29


class Preprocessing(nn.Module):
    """Raw features to comparable inputs: time of day, log amount, everything standardised and clipped.

    Time of day rather than time since the first transaction: what follows the training part in time must not
    lie outside what was learnt.
    """

    mean: Tensor
    scale: Tensor
    clip = 12.0  # standard deviations; the simulator and the limits of a transaction reach 1000s

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def fit(self, features: Tensor, weight: Tensor) -> None:
        """Take weighted mean and standard deviation of the transformed features [n, 30]."""
        x = self.transform(features).double()
        w = (weight / weight.sum()).double()[:, None]
        mean = (w * x).sum(0)
        scale = (w * (x - mean) ** 2).sum(0).sqrt()
        self.mean = mean.float()
        # A feature that never varies would divide by zero; leave it at zero instead.
        self.scale = torch.where(scale > 1e-9, scale, torch.ones_like(scale)).float()

    def transform(self, x: Tensor) -> Tensor:
        """Elementwise transform before scaling, [n, 30] to [n, 30]."""
        time = x[:, TIME : TIME + 1]
        time = time - torch.floor(time / SECONDS_PER_DAY) * SECONDS_PER_DAY  # [n, 1]
        amount = torch.log1p(torch.relu(x[:, AMOUNT : AMOUNT + 1]))  # [n, 1]
        return torch.cat([time, x[:, TIME + 1 : AMOUNT], amount], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return standardised inputs, [n, 30]."""
        standardised = (self.transform(x) - self.mean) / self.scale
        return torch.clamp(standardised, -self.clip, self.clip)


def dense_layers(inputs: int, hidden: Sequence[int], dropout: float) -> nn.Sequential:
    """Return Linear, BatchNorm, ReLU, Dropout for each hidden layer, then one logit."""
    layers: list[nn.Module] = []
    for units in hidden:
        layers += [nn.Linear(inputs, units), nn.BatchNorm1d(units), nn.ReLU(), nn.Dropout(dropout)]
        inputs = units
    return nn.Sequential(*layers, nn.Linear(inputs, 1))


class FraudNetwork(nn.Module):
    """What is stored: preprocessing, one or more trained members, and the prior correction.

    ``forward`` maps raw features float32 [n, 30] to scores float32 [n] in [0, 1].
    """

    shift: Tensor

    def __init__(self, preprocessing: Preprocessing, members: Sequence[nn.Sequential], shift: float) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.members = nn.ModuleList(members)
        self.register_buffer("shift", torch.tensor(shift, dtype=torch.float32))

    def logits(self, features: Tensor) -> Tensor:
        """Return prior-corrected log-odds [n], the mean over the members."""
        inputs = self.preprocessing(features)
        members = torch.cat([member(inputs) for member in self.members], dim=1)  # [n, members]
        return torch.mean(members, dim=1) + self.shift

    def forward(self, features: Tensor) -> Tensor:
        """Return scores [n] in [0, 1]."""
        return torch.sigmoid(self.logits(features))


class Attribution(nn.Module):
    """Signed contribution of each raw feature to the log-odds of the score: integrated gradients.

    The path runs from the average transaction (all inputs 0) to the transaction, so the contributions sum to
    about the difference of the two log-odds (Sundararajan et al. 2017). The last column, the base value, is
    the log-odds of the average transaction. The backward pass is written out: exporters know no autograd.
    """

    base: Tensor

    def __init__(self, network: FraudNetwork, steps: int = 8) -> None:
        super().__init__()
        self.preprocessing = network.preprocessing
        self.steps = steps
        folded = [FoldedMember(member) for member in network.members]
        self.members = nn.ModuleList(folded)
        average = torch.zeros(1, len(network.preprocessing.mean))
        logits = torch.cat([member.logit(average) for member in folded], dim=1)  # [1, members]
        self.register_buffer("base", torch.mean(logits) + network.shift)

    def forward(self, features: Tensor) -> Tensor:
        """Return contributions and base value [n, 31] for raw features [n, 30]."""
        inputs: Tensor = self.preprocessing(features)
        total = torch.zeros_like(inputs)
        for step in range(self.steps):
            point = inputs * ((step + 0.5) / self.steps)
            for member in self.members:
                total = total + member(point)
        contributions = torch.mul(inputs, total) / (self.steps * len(self.members))
        return torch.cat([contributions, torch.zeros_like(contributions[:, :1]) + self.base], dim=1)


class FoldedMember(nn.Module):
    """One member without BatchNorm and dropout; its forward pass is the gradient of the member's logit."""

    def __init__(self, member: nn.Module) -> None:
        super().__init__()
        layers = fold_batch_norm(member)
        self.weights = nn.ParameterList(layer.weight for layer in layers)
        self.biases = nn.ParameterList(layer.bias for layer in layers)

    @torch.no_grad()
    def logit(self, inputs: Tensor) -> Tensor:
        """Return the logit [n, 1] at standardised inputs [n, 30]."""
        for weight, bias in zip(list(self.weights)[:-1], list(self.biases)[:-1], strict=True):
            inputs = torch.relu(inputs @ weight.T + bias)  # [n, units]
        return nn.functional.linear(inputs, self.weights[-1], self.biases[-1])

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the gradient [n, 30] of the logit at standardised inputs [n, 30]."""
        gates = []
        for weight, bias in zip(list(self.weights)[:-1], list(self.biases)[:-1], strict=True):
            inputs = inputs @ weight.T + bias  # [n, units]
            gates.append((inputs > 0).to(inputs.dtype))
            inputs = torch.relu(inputs)
        gradient: Tensor = self.weights[-1]  # [1, units]
        for weight, gate in zip(reversed(list(self.weights)[:-1]), reversed(gates), strict=True):
            gradient = (gradient * gate) @ weight  # [n, units of the layer below]
        return gradient


@torch.no_grad()
def fold_batch_norm(member: nn.Module) -> list[nn.Linear]:
    """Return the member's linear layers with each BatchNorm multiplied in, as it acts outside training."""
    folded: list[nn.Linear] = []
    for layer in member.children():
        if isinstance(layer, nn.Linear):
            copy = nn.Linear(layer.in_features, layer.out_features)
            copy.load_state_dict(layer.state_dict())
            folded.append(copy)
        elif isinstance(layer, nn.BatchNorm1d):
            _fold(folded[-1], layer)
    return folded


def _fold(linear: nn.Linear, norm: nn.BatchNorm1d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    linear.weight.mul_(factor[:, None])
    linear.bias.copy_((linear.bias - norm.running_mean) * factor + norm.bias)
