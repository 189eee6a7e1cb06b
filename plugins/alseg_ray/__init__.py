"""The runs of a comparison on a Ray cluster (extra alseg[ray])."""
