"""The audit: what a version kept and dropped, and whether to trust it, for people who read no code."""
