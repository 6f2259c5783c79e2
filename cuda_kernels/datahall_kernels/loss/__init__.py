"""Cross-entropy, alone and with the linear layer before it."""
