"""Speed and quality against other libraries, side by side in one run; see benchmarks/README.md."""
