"""``python -m flows``: the same as the command ``rlhf``."""

import sys

from flows.cli import main

if __name__ == "__main__":
    sys.exit(main())
