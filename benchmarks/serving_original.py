"""The original's server, re-made from its description to measure against: its network behind FastAPI.

A pydantic model with 30 floats, one tensor per request through torch in eager mode, one uvicorn worker.
Weights are random: only its speed is compared. Run by `benchmarks.serving`.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import create_model

FEATURES = ("Time", *(f"V{number}" for number in range(1, 29)), "Amount")
UNITS = (30, 512, 256, 128, 64)
# The tuned variant: what an operator gets without touching the code.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"loop": "asyncio", "http": "h11", "workers": 1},
    "tuned": {"loop": "uvloop", "http": "httptools", "workers": 2},
}

Transaction: Any = create_model("Transaction", **dict.fromkeys(FEATURES, (float, ...)))
app = FastAPI()


def make_network() -> torch.nn.Module:
    """Return the original's network: 30-512-256-128-64-1 with batch normalisation and dropout."""
    layers: list[torch.nn.Module] = []
    for inputs, outputs in pairwise(UNITS):
        layers += [
            torch.nn.Linear(inputs, outputs),
            torch.nn.BatchNorm1d(outputs),
            torch.nn.ReLU(),
            torch.nn.Dropout(0.3),
        ]
    return torch.nn.Sequential(*layers, torch.nn.Linear(UNITS[-1], 1), torch.nn.Sigmoid()).eval()


network = make_network()


@app.get("/health")
def health() -> dict[str, str]:
    """Say that it runs."""
    return {"status": "ok"}


@app.post("/predict")
def predict(transaction: Transaction) -> dict[str, Any]:
    """Score one transaction."""
    features = torch.tensor([[getattr(transaction, name) for name in FEATURES]], dtype=torch.float32)
    with torch.no_grad():
        probability = network(features).item()  # [1, 1]
    risk = "HIGH" if probability > 0.8 else "MEDIUM" if probability > 0.5 else "LOW"
    return {"fraud_probability": probability, "is_fraud": probability > 0.5, "risk_level": risk}


if __name__ == "__main__":
    uvicorn.run(
        "benchmarks.serving_original:app",
        port=int(sys.argv[2]),
        log_level="warning",
        **VARIANTS[sys.argv[1]],
    )
