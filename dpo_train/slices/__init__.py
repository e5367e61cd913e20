"""Margin changes per slice of the held-out pairs, with intervals."""
