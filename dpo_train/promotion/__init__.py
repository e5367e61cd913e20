"""The promotion gate: paired comparison of a challenger with the champion."""
