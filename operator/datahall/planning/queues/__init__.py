"""Queues: the quota tree, who gives back what was borrowed, and whose turn it is. Pure: no I/O, no clock."""
