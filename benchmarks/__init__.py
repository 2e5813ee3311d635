"""Side-by-side timings against named rivals: `python -m benchmarks [CASE ...]`, or `make bench`."""
