"""Benchmarks: one command each, one JSON object per line on standard output, progress on standard error."""
