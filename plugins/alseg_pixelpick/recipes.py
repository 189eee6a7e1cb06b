"""The paper's settings: from its supplement, and where that is silent, FROM_CODE, from the published code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

FROM_CODE = {
    "query.size",
    "train.batch_size",
    "train.encoder_rate",
    "train.weight_decay",
    "augment.jitter",
    "augment.brightness",
    "augment.contrast",
    "augment.saturation",
    "augment.hue",
    "augment.grayscale",
    "augment.blur",
    "augment.blur_sigma",
    "augment.fill",
}
MULTISTEP = {"schedule": "multistep", "milestones": (0.4, 0.8), "decay": 0.1}
POLY = {"schedule": "poly", "power": 0.9}
STRONG_JITTER = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
WEAK_JITTER = {"brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "hue": 0.1}
AUGMENT = {
    "scale": (0.5, 2.0),
    "flip": 0.5,
    "jitter": 0.8,
    "grayscale": 0.2,
    "blur": 0.5,
    "blur_sigma": (0.1, 2.0),
    "fill": (0.485, 0.456, 0.406),
}
ADAM = {
    "epochs": 50,
    "batch_size": 4,
    "optimizer": "adam",
    "learning_rate": 5e-4,
    "encoder_rate": 0.1,
    "weight_decay": 2e-4,
}
SGD = {
    "epochs": 50,
    "batch_size": 10,
    "optimizer": "sgd",
    "learning_rate": 1e-2,
    "momentum": 0.9,
    "encoder_rate": 0.1,
    "weight_decay": 5e-4,
}
TEN_OF_A_HUNDRED = {"first_pixels": 10, "pixels_per_round": 10, "budget": 100}


def default() -> Mapping[str, Any]:
    """What a run is where nobody says otherwise."""
    return {
        "dataset": "shapes",
        "model": "deeplabv3plus",
        "acquirer": "margin",
        "selector": "topk-then-uniform",
        "oracle": "ground-truth",
    }


def baseline() -> Mapping[str, Any]:
    """What every strategy is compared with: chance."""
    return {"acquirer": "random", "selector": "uniform"}


def camvid() -> Mapping[str, Any]:
    """CamVid: 360x480 throughout."""
    return {
        **TEN_OF_A_HUNDRED,
        "size": "360x480",
        "train": {**ADAM, **MULTISTEP},
        "augment": {**AUGMENT, **STRONG_JITTER},
    }


def cityscapes() -> Mapping[str, Any]:
    """Cityscapes: trained and asked at 256x512, evaluated at 512x1024."""
    return {
        **TEN_OF_A_HUNDRED,
        "train": {**ADAM, **POLY, "size": "256x512"},
        "query": {"size": "256x512"},
        "evaluate": {"size": "512x1024"},
        "augment": {**AUGMENT, **STRONG_JITTER},
    }


def voc12() -> Mapping[str, Any]:
    """VOC 2012: the longer side 400, crops of 320x320, evaluated at the images' own size."""
    return {
        "first_pixels": 5,
        "pixels_per_round": 5,
        "budget": 50,
        "train": {**SGD, **POLY, "size": "320x320", "resize": "longer:400"},
        "query": {"size": "longer:400"},
        "evaluate": {"size": "own"},
        "augment": {**AUGMENT, **WEAK_JITTER},
    }


def voc12_fpn() -> Mapping[str, Any]:
    """VOC 2012 with the FPN, whose weight decay differs."""
    recipe = dict(voc12())
    return {**recipe, "model": "fpn", "train": {**recipe["train"], "weight_decay": 1e-4}}


RECIPES: dict[str, Callable[[], Mapping[str, Any]]] = {
    "default": default,
    "baseline": baseline,
    "camvid": camvid,
    "cityscapes": cityscapes,
    "voc12": voc12,
    "voc12-fpn": voc12_fpn,
}
