"""Described: on which slices of the data margins moved, and how sure that is."""
