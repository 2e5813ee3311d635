"""Pictures in two layers: pure `compute` and `plot` functions, and thin widgets that wire them together."""
