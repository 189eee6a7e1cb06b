"""Semantic segmentation models of transformers, and image datasets of datasets."""
