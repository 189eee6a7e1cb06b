"""Timings of alseg beside the paper's way of doing the same, in one run on one machine."""
