"""`python -m bench.operator_without_pods`: the operator without those of its workers that make pods.

Everything up to the place of each worker, written into the job's status, is the operator's own. That is as far as
Kueue's own measurement goes, and where `admission_runner` takes over.
"""

from __future__ import annotations

import sys

from datahall.control import operator
from datahall.control.__main__ import main

if __name__ == "__main__":
    operator.MAKERS = 0
    sys.exit(main())
