"""From the items of a reader to the tables of one batch."""
