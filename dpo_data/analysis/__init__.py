"""Questions to a published version: statistics, diff, what-if, explain, SQL, export."""
