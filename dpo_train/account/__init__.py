"""Accounted for: whose gradients moved the weights, and through them the margins."""
