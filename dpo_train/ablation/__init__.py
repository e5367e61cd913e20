"""Retraining without a slice to confirm an attribution."""
