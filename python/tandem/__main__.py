"""python -m tandem, and the command tandem: hands over to the program that lies in this package."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    """Replaces this process by the program."""
    program = Path(__file__).parent / "bin" / "tandem"
    os.execv(program, ["tandem", *sys.argv[1:]])


if __name__ == "__main__":
    main()
