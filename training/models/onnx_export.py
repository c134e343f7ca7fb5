"""The network as two ONNX files that need neither torch nor this package: score and reasons."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from training.models.network import Attribution, FraudNetwork

OPSET = 18


def export_onnx(network: FraudNetwork, folder: Path) -> tuple[Path, Path]:
    """Write ``model.onnx`` (gives ``score``) and ``attribution.onnx`` (gives ``contributions`` [n, 31])."""
    score = folder / "model.onnx"
    attribution = folder / "attribution.onnx"
    _export(network, score, "score")
    _export(Attribution(network).eval(), attribution, "contributions")
    return score, attribution


def _export(module: nn.Module, path: Path, output: str) -> None:
    example = torch.zeros(2, 30)
    example[1] = 1.0
    with warnings.catch_warnings():
        # The tracing exporter is deprecated in favour of one that needs onnxscript; parity is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            module,
            (example,),
            str(path),
            input_names=["features"],
            output_names=[output],
            dynamic_axes={"features": {0: "n"}, output: {0: "n"}},
            opset_version=OPSET,
            dynamo=False,
        )
