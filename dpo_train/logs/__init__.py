"""Metrics and the pair log of a run."""
