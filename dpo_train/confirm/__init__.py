"""Confirmed, or not: what a retraining without a slice changed, beside what was foretold."""
