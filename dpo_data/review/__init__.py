"""The review: people read comparisons blind, and their verdicts come back as votes at the next refresh."""
