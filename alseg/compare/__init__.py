"""Strategies set against each other over seeds: the grid of runs, and what can be concluded from it."""
