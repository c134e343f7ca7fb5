"""What travels with a pair of models: calibration, thresholds and the document of the training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bentos.errors import ReleaseError
from bentos.policy import Calibration, DecisionRule, ExpectedLoss, Thresholds
from bentos.releases.store import NEURAL_NET, XGBOOST, ModelStore, identity
from bentos.settings.sections import LimitSettings

# The feature order every artefact of the project shares.
FEATURE_NAMES = ("Time", *(f"V{number}" for number in range(1, 29)), "Amount")
LATER_FIELDS = ("expected_loss", "review_cost", "prevalence", "input_limits", "reference")


@dataclass(frozen=True)
class Release:
    """Both models, calibration and the rule of decision, promoted together.

    Parameters
    ----------
    number : str
        The release, as the registry counts them.
    version : str
        Under which both models lie in the store; a release imported anew has another one.
    """

    number: str
    version: str
    fingerprint: str
    rule: DecisionRule
    calibration: Calibration
    metadata: Mapping[str, Any]
    registered: Mapping[str, Mapping[str, str]]

    @property
    def neural_net_tag(self) -> str:
        """The network's tag in the store."""
        return f"{NEURAL_NET}:{self.version}"

    @property
    def xgboost_tag(self) -> str:
        """The trees' tag in the store."""
        return f"{XGBOOST}:{self.version}"


def read_release(store: ModelStore, version: str, limits: LimitSettings) -> Release:
    """Return the release that lies in the store under a version.

    Raises
    ------
    ReleaseError
        If its models do not belong together, or this service cannot serve it: other features, inputs that
        training would have refused, a calibration it does not know.
    """
    network, trees = store.document(NEURAL_NET, version), store.document(XGBOOST, version)
    if identity(network) != identity(trees):
        raise ReleaseError(f"{NEURAL_NET}:{version} and {XGBOOST}:{version} are not of one release.")
    number, fingerprint = identity(network)
    document: Mapping[str, Any] = network["metadata"]
    try:
        if tuple(document["feature_names"]) != FEATURE_NAMES:
            raise ReleaseError(
                f"{NEURAL_NET}:{version} was trained on other features than this service takes."
            )
        _check_limits(document.get("input_limits"), limits, number)
        return Release(
            number=number,
            version=version,
            fingerprint=fingerprint,
            rule=DecisionRule(
                Thresholds(**document["thresholds"]), _expected_loss(document.get("expected_loss"))
            ),
            calibration=_calibration(document["calibration"]),
            metadata=document,
            registered={
                name: model["metadata"].get("model", {})
                for name, model in ((NEURAL_NET, network), (XGBOOST, trees))
            },
        )
    except (LookupError, TypeError, ValueError) as error:
        raise ReleaseError(f"The document of release {number} is not complete: {error!r}.") from error


def describe(release: Release) -> dict[str, Any]:
    """Return what ``GET /info`` answers."""
    document = release.metadata
    return {
        "release": release.number,
        "models": {"neural_net": release.neural_net_tag, "xgboost": release.xgboost_tag},
        "registered_models": release.registered,
        "feature_names": list(FEATURE_NAMES),
        "thresholds": document["thresholds"],
        "calibration": document["calibration"],
        "training_run_id": document["training_run_id"],
        "trained_at": document["trained_at"],
        "data": document["data"],
        "metrics": document["metrics"],
        # Absent in releases older than the field: null.
        **{name: document.get(name) for name in LATER_FIELDS},
    }


def _check_limits(trained: Mapping[str, float] | None, limits: LimitSettings, number: str) -> None:
    """Refuse a release whose training would have refused inputs that this service takes."""
    if trained is None:  # a release older than the limits
        return
    for name, limit in limits.model_dump().items():
        inside = trained[name] <= limit if "_min" in name else trained[name] >= limit
        if not inside:
            raise ReleaseError(
                f"Release {number} was trained with {name} = {trained[name]:g}, and this service would take "
                f"{limit:g} (limits.{name}): narrow the service's limit, or train with a wider one."
            )


def _expected_loss(document: Mapping[str, float] | None) -> ExpectedLoss | None:
    if document is None:
        return None
    if not document["bound"] > 0:
        raise ValueError("expected_loss.bound must be positive")
    return ExpectedLoss(document["bound"])


def _calibration(document: Mapping[str, Any]) -> Calibration:
    if document["method"] != "logistic":
        raise ReleaseError(f"This service does not know the calibration method {document['method']!r}.")
    return Calibration(
        intercept=document["intercept"],
        epsilon=document["epsilon"],
        **document["coefficients"],
    )
