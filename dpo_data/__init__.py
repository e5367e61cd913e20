"""Raw preference comparisons to a versioned, audited set of preference pairs."""

__version__ = "0.1.0"
