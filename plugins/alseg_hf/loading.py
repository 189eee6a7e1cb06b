"""Building the model of a checkpoint."""

from __future__ import annotations

from alseg.errors import UserMistake
from alseg_hf.checkpoints import IMAGENET, Checkpoint, Normalisation, built, digest, start_afresh
from alseg_hf.network import TransformersModel


def load(classes: int, checkpoint: str, revision: str, weights: str, classifier: str) -> TransformersModel:
    """The checkpoint's network for so many classes.

    weights: "default", the checkpoint's; or "none", its architecture from noise. classifier: "new", drawn afresh
    even where the checkpoint has as many classes; or "stored", the checkpoint's. Where the architecture cannot be
    had and is to start from "none", the model waits for stored weights, which bring it along.
    """
    source = Checkpoint(checkpoint, revision)
    origin = {"checkpoint": checkpoint, "revision": "", "weights": weights, "sha256": ""}
    try:
        config = source.configuration(classes)
    except UserMistake as mistake:
        if weights != "none":
            raise
        return TransformersModel(None, classes, Normalisation(*IMAGENET), origin, mistake)
    origin["revision"] = source.commit()
    if weights == "none":
        return TransformersModel(built(config), classes, source.normalisation(), origin)
    net = source.network(config, keep_classifier=classifier == "stored")
    if classifier == "new":
        start_afresh(net)
    origin["sha256"] = digest(net)
    return TransformersModel(net, classes, source.normalisation(), origin)
