"""The architectures of segmentation-models-pytorch as models.

Factories only: torch and the library are imported inside them, so that listing the pieces does without both.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from alseg.errors import UserMistake
from alseg.hookspecs import hookimpl
from alseg.options import Between

if TYPE_CHECKING:
    from alseg.hookspecs import Register
    from alseg.protocols import Model

Weights = Literal["default", "none"] | Path
Norm = Literal["batchnorm", "instancenorm", "none"]
Width = Annotated[int, Between(1, 4096)]
Widths = Annotated[tuple[int, ...], Between(1, 4096)]
Rates = Annotated[tuple[int, int, int], Between(1, 256)]
Dropout = Annotated[float, Between(0, 0.99)]
SMALL = "tu-mobilenetv2_100"


def unet(
    classes: int,
    encoder: str = SMALL,
    weights: Weights = "default",
    depth: Literal[3, 4, 5] = 5,
    widths: Widths = (256, 128, 64, 32, 16),
    norm: Norm = "batchnorm",
    attention: Literal["none", "scse"] = "none",
    interpolation: Literal["nearest", "bilinear"] = "nearest",
) -> Model:
    """U-Net (Ronneberger et al., MICCAI 2015); widths: channels of each level, the deepest first."""
    options = {"decoder_attention_type": _or_none(attention), "decoder_interpolation": interpolation}
    return _built("unet", classes, encoder, weights, **_levels(depth, widths), **_norm(norm), **options)


def unetplusplus(
    classes: int,
    encoder: str = SMALL,
    weights: Weights = "default",
    depth: Literal[3, 4, 5] = 5,
    widths: Widths = (256, 128, 64, 32, 16),
    norm: Norm = "batchnorm",
    attention: Literal["none", "scse"] = "none",
    interpolation: Literal["nearest", "bilinear"] = "nearest",
) -> Model:
    """U-Net++ (Zhou et al., DLMIA 2018); widths: channels of each level, the deepest first."""
    options = {"decoder_attention_type": _or_none(attention), "decoder_interpolation": interpolation}
    return _built("unetplusplus", classes, encoder, weights, **_levels(depth, widths), **_norm(norm), **options)


def manet(
    classes: int,
    encoder: str = SMALL,
    weights: Weights = "default",
    depth: Literal[3, 4, 5] = 5,
    widths: Widths = (256, 128, 64, 32, 16),
    pab_channels: Width = 64,
    norm: Norm = "batchnorm",
    interpolation: Literal["nearest", "bilinear"] = "nearest",
) -> Model:
    """MA-Net (Fan et al., IEEE Access 2020); widths: channels of each level, pab_channels: of its attention."""
    options = {"decoder_pab_channels": pab_channels, "decoder_interpolation": interpolation}
    return _built("manet", classes, encoder, weights, **_levels(depth, widths), **_norm(norm), **options)


def linknet(
    classes: int,
    encoder: str = SMALL,
    weights: Weights = "default",
    depth: Literal[3, 4, 5] = 5,
    norm: Norm = "batchnorm",
) -> Model:
    """LinkNet (Chaurasia and Culurciello, VCIP 2017)."""
    return _built("linknet", classes, encoder, weights, encoder_depth=depth, **_norm(norm))


def fpn(
    classes: int,
    encoder: str = SMALL,
    weights: Weights = "default",
    depth: Literal[3, 4, 5] = 5,
    pyramid_channels: Width = 256,
    channels: Width = 128,
    merge: Literal["add", "cat"] = "add",
    dropout: Dropout = 0.2,
    interpolation: Literal["nearest", "bilinear"] = "nearest",
) -> Model:
    """A feature pyramid (Kirillov et al., CVPR 2019) as the library has it."""
    return _built(
        "fpn",
        classes,
        encoder,
        weights,
        encoder_depth=depth,
        decoder_pyramid_channels=pyramid_channels,
        decoder_segmentation_channels=channels,
        decoder_merge_policy=merge,
        decoder_dropout=dropout,
        decoder_interpolation=interpolation,
    )


def pspnet(
    classes: int,
    encoder: str = SMALL,
    weights: Weights = "default",
    depth: Literal[3, 4, 5] = 3,
    channels: Width = 512,
    norm: Norm = "batchnorm",
    dropout: Dropout = 0.2,
) -> Model:
    """PSPNet (Zhao et al., CVPR 2017); its grid has the stride 2^depth."""
    options = {"psp_out_channels": channels, "psp_dropout": dropout}
    return _built("pspnet", classes, encoder, weights, encoder_depth=depth, **_norm(norm), **options)


def deeplabv3(
    classes: int,
    encoder: str = SMALL,
    weights: Weights = "default",
    output_stride: Literal[8, 16] = 8,
    channels: Width = 256,
    rates: Rates = (12, 24, 36),
    separable: bool = False,
    dropout: Dropout = 0.5,
) -> Model:
    """DeepLabv3 (Chen et al., 2017); separable: whether the dilated convolutions are."""
    return _built("deeplabv3", classes, encoder, weights, **_aspp(output_stride, channels, rates, separable, dropout))


def deeplabv3plus(
    classes: int,
    encoder: str = SMALL,
    weights: Weights = "default",
    output_stride: Literal[8, 16] = 16,
    channels: Width = 256,
    rates: Rates = (12, 24, 36),
    separable: bool = True,
    dropout: Dropout = 0.5,
) -> Model:
    """DeepLabv3+ (Chen et al., ECCV 2018) as the library has it; separable: whether the dilated convolutions are."""
    options = _aspp(output_stride, channels, rates, separable, dropout)
    return _built("deeplabv3plus", classes, encoder, weights, **options)


def pan(
    classes: int,
    encoder: str = SMALL,
    weights: Weights = "default",
    output_stride: Literal[16, 32] = 16,
    channels: Width = 32,
    interpolation: Literal["bilinear", "nearest"] = "bilinear",
) -> Model:
    """A pyramid attention network (Li et al., BMVC 2018)."""
    options = {"decoder_channels": channels, "decoder_interpolation": interpolation}
    return _built("pan", classes, encoder, weights, encoder_output_stride=output_stride, **options)


def upernet(
    classes: int,
    encoder: str = SMALL,
    weights: Weights = "default",
    depth: Literal[3, 4, 5] = 5,
    channels: Width = 256,
    norm: Norm = "batchnorm",
) -> Model:
    """UPerNet (Xiao et al., ECCV 2018)."""
    options = {"encoder_depth": depth, "decoder_channels": channels}
    return _built("upernet", classes, encoder, weights, **_norm(norm), **options)


def segformer(classes: int, encoder: str = "mit_b0", weights: Weights = "default", channels: Width = 256) -> Model:
    """SegFormer (Xie et al., NeurIPS 2021): mit_b0 to mit_b5, or another encoder under its decoder."""
    return _built("segformer", classes, encoder, weights, decoder_segmentation_channels=channels)


def dpt(
    classes: int,
    encoder: str = "tu-vit_small_patch16_224.augreg_in21k",
    weights: Weights = "default",
    readout: Literal["cat", "add", "ignore"] = "cat",
    widths: Widths = (256, 512, 1024, 1024),
    fusion_channels: Width = 256,
) -> Model:
    """DPT (Ranftl et al., ICCV 2021) on a vision transformer of timm; as many levels as there are widths."""
    options = {"decoder_readout": readout, "decoder_fusion_channels": fusion_channels}
    levels = {"encoder_depth": len(widths), "decoder_intermediate_channels": widths}
    return _built("dpt", classes, encoder, weights, **levels, **options)


# by the library's names
ARCHITECTURES: dict[str, Callable[..., Any]] = {
    "unet": unet,
    "unetplusplus": unetplusplus,
    "manet": manet,
    "linknet": linknet,
    "fpn": fpn,
    "pspnet": pspnet,
    "deeplabv3": deeplabv3,
    "deeplabv3plus": deeplabv3plus,
    "pan": pan,
    "upernet": upernet,
    "segformer": segformer,
    "dpt": dpt,
}


def _built(architecture: str, classes: int, encoder: str, weights: str | Path, **options: Any) -> Model:
    try:
        from alseg_smp.models import build
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "segmentation_models_pytorch":
            raise
        raise UserMistake(
            f"The model smp-{architecture} needs segmentation-models-pytorch: pip install 'alseg[smp]'."
        ) from error
    return build(architecture, classes, encoder, str(weights), options)


def _levels(depth: int, widths: tuple[int, ...]) -> dict[str, Any]:
    if len(widths) < depth:
        raise UserMistake(f"model.widths takes a number for each of {depth} levels, not {len(widths)}.")
    return {"encoder_depth": depth, "decoder_channels": widths[:depth]}


def _norm(norm: str) -> dict[str, Any]:
    return {"decoder_use_norm": "identity" if norm == "none" else norm}


def _or_none(word: str) -> str | None:
    return None if word == "none" else word


def _aspp(stride: int, channels: int, rates: tuple[int, ...], separable: bool, dropout: float) -> dict[str, Any]:
    return {
        "encoder_output_stride": stride,
        "decoder_channels": channels,
        "decoder_atrous_rates": rates,
        "decoder_aspp_separable": separable,
        "decoder_aspp_dropout": dropout,
    }


@hookimpl
def register_models(register: Register) -> None:
    """Each architecture of the library as smp-NAME."""
    for name, factory in ARCHITECTURES.items():
        register(f"smp-{name}", factory)
