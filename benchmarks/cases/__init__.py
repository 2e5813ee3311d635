"""The benchmark cases, one a file; `benchmarks.case.CASES` lists them."""
