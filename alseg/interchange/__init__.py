"""Labels in other programs' formats: written for a run, and read back as points."""
