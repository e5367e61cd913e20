"""How a version lies on disk, what it is made of, and what it must forget."""
