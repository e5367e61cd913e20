"""Prefect flows and the `dpo` command: they order the work and do no arithmetic."""
