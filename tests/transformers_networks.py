"""Tiny networks of transformers, saved as checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as t
from torch import nn

from alseg_hf.checkpoints import built, quiet
from alseg_hf.layout import called

STAGES = ["stage1", "stage2", "stage3", "stage4"]
VIT: dict[str, Any] = {
    "image_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}
WINDOWS = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "window_size": 4}


def configuration(name: str) -> Any:
    """A network's, tiny."""
    swin = t.SwinConfig(**WINDOWS, out_features=STAGES)
    convnext = t.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], out_features=STAGES)
    beit = {**VIT, "out_indices": [1, 2, 3, 4]}
    dpt = {**VIT, "backbone_out_indices": [0, 1, 2, 3], "fusion_hidden_size": 8}
    made = {
        "segformer": lambda: t.SegformerConfig(
            hidden_sizes=[8, 16, 16, 16],
            depths=[1, 1, 1, 1],
            num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=16,
        ),
        "upernet-convnext": lambda: t.UperNetConfig(backbone_config=convnext, hidden_size=16, auxiliary_in_channels=16),
        "upernet-swin": lambda: t.UperNetConfig(backbone_config=swin, hidden_size=16, auxiliary_in_channels=32),
        "beit": lambda: t.BeitConfig(**beit, use_relative_position_bias=True),
        "data2vec-vision": lambda: t.Data2VecVisionConfig(**beit),
        "dpt": lambda: t.DPTConfig(**dpt, neck_hidden_sizes=[8, 8, 8, 8]),
        "dpt-hybrid": lambda: hybrid(dpt),
        "mobilenet_v2": lambda: t.MobileNetV2Config(depth_multiplier=0.25, output_stride=8),
        "mobilevit": lambda: t.MobileViTConfig(
            hidden_sizes=[8, 8, 8], neck_hidden_sizes=[8] * 7, num_attention_heads=2, aspp_out_channels=8
        ),
        "mobilevitv2": lambda: t.MobileViTV2Config(width_multiplier=0.25, n_attn_blocks=[1] * 3, aspp_out_channels=16),
        "mask2former": lambda: t.Mask2FormerConfig(
            backbone_config=swin,
            feature_size=32,
            mask_feature_size=32,
            hidden_dim=32,
            encoder_feedforward_dim=16,
            dim_feedforward=16,
            encoder_layers=1,
            decoder_layers=2,
            num_attention_heads=2,
            num_queries=10,
        ),
        "maskformer": lambda: t.MaskFormerConfig(
            backbone_config=t.SwinConfig(**WINDOWS, out_features=STAGES),
            decoder_config=t.DetrConfig(d_model=16, decoder_layers=1, encoder_layers=1, num_queries=10),
            fpn_feature_size=32,
            mask_feature_size=32,
        ),
        "eomt": lambda: t.EomtConfig(
            **{**VIT, "num_hidden_layers": 3}, num_blocks=1, num_queries=10, num_upscale_blocks=2, mlp_ratio=1
        ),
    }
    with quiet():
        return made[name]()


def hybrid(dpt: dict[str, Any]) -> Any:
    """DPT on top of a convolutional network, which appends to what its backbone gives."""
    body = t.BitConfig(
        depths=[1, 1, 1],
        hidden_sizes=[8, 16, 32],
        embedding_size=8,
        num_groups=2,
        global_padding="same",
        layer_type="bottleneck",
        embedding_dynamic_padding=True,
        out_features=STAGES[:3],
    )
    return t.DPTConfig(
        **dpt,
        is_hybrid=True,
        neck_hidden_sizes=[8, 16, 8, 8],
        readout_type="project",
        neck_ignore_stages=[0, 1],
        backbone_featmap_shape=[1, 32, 4, 4],
        backbone_config=body,
    )


def write_checkpoint(folder: Path, name: str, classes: int = 7, processor: Any = None) -> Path:
    """A checkpoint from noise that is strong enough to tell its pixels apart."""
    config = configuration(name)
    config.num_labels = classes
    torch.manual_seed(1)
    net = built(config)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    if norms:  # else evaluation mode would scale their maps down to nothing
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            called(net.train(), torch.randn(4, 3, 64, 64))
    with quiet():
        net.eval().save_pretrained(folder)
        if processor is not None:
            processor.save_pretrained(folder)
    return folder
