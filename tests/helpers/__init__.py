"""Builders shared by the tests: planted versions, tiny models, hostile inputs, browsers."""
