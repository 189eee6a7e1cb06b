"""Frozen foundation features from timm with a light head."""
