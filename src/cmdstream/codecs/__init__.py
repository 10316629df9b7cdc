"""How commands and results become bytes: one module per format."""
