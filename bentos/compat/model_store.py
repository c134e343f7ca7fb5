"""Where BentoML keeps its models: a private attribute of its store.

In a bento's image it is a folder inside the bento, on a host ``<BENTOML_HOME>/models``. BentoML 1.4.40 has no
public way to ask for it.
"""

from __future__ import annotations

from pathlib import Path

from bentoml._internal.bento.bento import Bento
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models.model import ModelStore

from bentos.compat.assumptions import require


def check_assumptions() -> None:
    """Return if BentoML's store keeps its folder where `models_folder` looks.

    Raises
    ------
    BrokenAssumptionError
        If it does not.
    """
    folder = Path("models").resolve()
    require(
        "bentoml",
        "its model store keeps its folder in `_path`",
        getattr(ModelStore(folder), "_path", None) == folder,
    )


def models_folder() -> Path:
    """Return the folder of the models that this process serves from."""
    return Path(BentoMLContainer.model_store.get()._path)


def packed_version(bento: Bento, model: str) -> str | None:
    """Return the version of a model that a bento was built with; None if it holds no such model."""
    tags = (info.tag for info in bento.info.all_models)
    return next((tag.version for tag in tags if tag.name == model), None)


def models_of_bento(bento: Bento) -> Path:
    """Return the folder of a bento's models: its own where it has one, else the host's store."""
    own = bento._model_store
    return Path(own._path) if own is not None and own.list() else models_folder()
