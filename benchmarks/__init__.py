"""Speed and quality, measured: one module each, run as `python -m benchmarks.NAME [--json FILE]`."""
