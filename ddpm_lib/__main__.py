"""`python -m ddpm_lib` is the program `ddpm`."""

import sys

from .cli.main import main

if __name__ == "__main__":
    sys.exit(main())
