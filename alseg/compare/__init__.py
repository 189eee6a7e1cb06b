<<<<<<< HEAD
"""Strategies set against one another: grids of runs, and what can be concluded from them."""
=======
"""Strategies set against each other over seeds: the grid of runs, and what can be concluded from it."""
>>>>>>> stats
