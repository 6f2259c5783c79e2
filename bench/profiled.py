"""`python -m bench.profiled FILE`: the operator under cProfile.

`python -m cProfile` would write nothing: the operator leaves by `os._exit`, which skips everything that is still to do.
"""

from __future__ import annotations

import cProfile
import os
import sys
from typing import NoReturn

from datahall.control.__main__ import main

if __name__ == "__main__":
    profile, leave = cProfile.Profile(), os._exit

    def write_and_leave(status: int) -> NoReturn:
        profile.disable()
        profile.dump_stats(sys.argv[1])
        leave(status)

    os._exit = write_and_leave
    profile.enable()
    write_and_leave(main())
