"""The one error this room raises on purpose: a sentence for a person, with the way out where there is one."""

from __future__ import annotations


class ClusterError(Exception):
    """Something the reader can act on; `python -m local_cluster` prints it without a traceback and exits 1."""
