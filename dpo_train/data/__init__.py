"""Training data: pairs of a version, encoding, checks, sampling."""
