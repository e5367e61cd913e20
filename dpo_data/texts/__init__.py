"""What touches text: block by block beside each batch, once, with nothing seen of the rest of the set."""
