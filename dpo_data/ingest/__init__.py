"""Raw sources to append-only batches of comparisons and votes."""
