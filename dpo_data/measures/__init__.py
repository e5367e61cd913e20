"""Measured columns of the ledger; each module adds columns and defines the rules that use them."""
