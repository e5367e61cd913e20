"""What people ask of a version: its numbers, the story of a row, what changed, and its rows for other tools."""
