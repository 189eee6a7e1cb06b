"""Strategies set against one another: grids of runs, and what can be concluded from them."""
