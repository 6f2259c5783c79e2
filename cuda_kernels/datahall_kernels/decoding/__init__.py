"""One step of decoding: rotary positions and the append to a paged cache, and attention over it."""
