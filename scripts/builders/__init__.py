"""One function for each file of `data/`: it returns the paths that it wrote."""
