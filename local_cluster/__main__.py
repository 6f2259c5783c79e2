"""`python -m local_cluster`."""

from __future__ import annotations

import sys

from local_cluster.cli import main

if __name__ == "__main__":
    sys.exit(main())
