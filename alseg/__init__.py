"""alseg: active learning for semantic segmentation, one pixel at a time.

The names below are the public surface. Importing `alseg` loads neither torch nor any plugin; a name
that needs torch is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from alseg.errors import AlsegError, UserMistake, Waiting
from alseg.hookspecs import hookimpl
from alseg.stamps import file_stamp

__version__ = "0.1.0"

if TYPE_CHECKING:
    from alseg.api import resume, run
    from alseg.interchange.exchange import export_labels, import_labels
    from alseg.options import Between, Longer, Size
    from alseg.plugin_modules import API_VERSION
    from alseg.plugins import Registry, load_plugins
    from alseg.predicting import predict
    from alseg.protocols import Acquirer, Dataset, Images, Model, Oracle, Selector, Term
    from alseg.ranking import highest, pick
    from alseg.segment import Segmentation, Segmenter
    from alseg.values import (
        Answer,
        Answers,
        Classes,
        PixelLabel,
        PixelLabels,
        PoolBatch,
        Prediction,
        Question,
        Selection,
        Taught,
    )

_HOMES = {
    "alseg.api": ("run", "resume"),
    "alseg.interchange.exchange": ("export_labels", "import_labels"),
    "alseg.options": ("Between", "Longer", "Size"),
    "alseg.plugin_modules": ("API_VERSION",),
    "alseg.plugins": ("Registry", "load_plugins"),
    "alseg.protocols": ("Acquirer", "Dataset", "Images", "Model", "Oracle", "Selector", "Term"),
    "alseg.predicting": ("predict",),
    "alseg.ranking": ("highest", "pick"),
    "alseg.segment": ("Segmentation", "Segmenter"),
    "alseg.values": (
        "Answer",
        "Answers",
        "Classes",
        "PixelLabel",
        "PixelLabels",
        "PoolBatch",
        "Prediction",
        "Question",
        "Selection",
        "Taught",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "API_VERSION",
    "Acquirer",
    "AlsegError",
    "Answer",
    "Answers",
    "Between",
    "Classes",
    "Dataset",
    "Images",
    "Longer",
    "Model",
    "Oracle",
    "PixelLabel",
    "PixelLabels",
    "PoolBatch",
    "Prediction",
    "Question",
    "Registry",
    "Segmentation",
    "Segmenter",
    "Selection",
    "Selector",
    "Size",
    "Taught",
    "Term",
    "UserMistake",
    "Waiting",
    "export_labels",
    "file_stamp",
    "highest",
    "hookimpl",
    "import_labels",
    "load_plugins",
    "pick",
    "predict",
    "resume",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'alseg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
