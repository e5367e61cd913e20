"""Train a policy on preference pairs, and say which slices of the data moved the margins."""

__version__ = "0.1.0"
