#!/usr/bin/env python3
"""link_package.py FOLDER: makes the package built in FOLDER importable in the Python that runs this, by a .pth file. Run again at will.

A Python that lies behind a link (one set-up shared by several checkouts) is left alone.
"""

import sys
import sysconfig
from pathlib import Path


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1]).resolve()
    if not list(folder.glob("tandem/_core*.so")):
        sys.exit(f"link_package.py: {folder} has no tandem package; was it built?")
    site = Path(sysconfig.get_path("purelib"))
    if any(part.is_symlink() for part in (Path(".venv"), site)):
        print("[build] .venv is shared: set PYTHONPATH to", folder)
        return
    (site / "tandem.pth").write_text(f"{folder}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
