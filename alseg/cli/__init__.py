"""The command line: each command a thin shell over a Python call."""
