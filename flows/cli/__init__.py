"""Command line: one typer application, `dpo`."""
