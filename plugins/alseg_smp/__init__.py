"""The architectures of segmentation-models-pytorch as models."""
