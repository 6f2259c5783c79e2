"""Cross-entropy, alone and with the linear layer before it (csrc: cross_entropy).

Not called cross_entropy, because the function of that name in `datahall_kernels` would hide it.
"""
