"""`python -m feast_registry ARGUMENTS…` is `feast-registry ARGUMENTS…`."""

import os
import sys

from feast_registry import binary

if __name__ == "__main__":
    program = binary()
    os.execv(program, [str(program), *sys.argv[1:]])
