"""`python -m bench` is the `lmia` command, also where only the code was shipped: in a job on a cluster."""

import sys

from bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
