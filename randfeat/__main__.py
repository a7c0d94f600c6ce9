"""`python -m randfeat`: the command `randfeat`."""

import sys

from randfeat.command_line import main

if __name__ == "__main__":
    sys.exit(main())
