"""The benchmarks, one module each on `contract`; `registry` knows them by name."""
