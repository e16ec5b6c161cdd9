"""The receiver's benchmark: `make bench-app`."""
