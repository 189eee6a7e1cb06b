"""What a run shows of itself: numbers of a round, tables, pictures."""
