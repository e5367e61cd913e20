"""Measures of single texts: features, token counts, minhash, embeddings, and their caches."""
