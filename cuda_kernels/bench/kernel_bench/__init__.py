"""How fast the kernels are, beside torch and its peers: `python -m kernel_bench`."""
