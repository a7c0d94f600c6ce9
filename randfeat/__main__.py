"""`python -m randfeat`: the command `randfeat`."""

import sys

from randfeat.cli.command_line import main

if __name__ == "__main__":
    sys.exit(main())
