"""Datasets: CamVid as the paper uses it, and generated shapes that need no file."""
