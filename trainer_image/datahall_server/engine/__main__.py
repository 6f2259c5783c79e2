"""`python -m datahall_server.engine FD`: started by `client.py`, not by people."""

import sys

from .worker import run

if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1])))
