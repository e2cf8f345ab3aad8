#!/usr/bin/env python3
"""Headers of the CUDA libraries that Tandem opens when it runs: those that the toolkit lacks, taken from NVIDIA's wheels on PyPI.

tools/cuda_headers.py              fetch what is missing into .cache/cuda-headers/include; a second run returns at once
tools/cuda_headers.py --all        fetch all of them, whatever the toolkit has

Only the headers are kept: the libraries are not needed to build, and the wheels are deleted. The folder lies beside the .venv that is used,
so that working trees which share one share both.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FRONTEND = ("nvidia-cudnn-frontend", "1.32.0")
WANTED = {  # header: package and version by the toolkit's major version, whose headers theirs include
    "nvrtc.h": {12: ("nvidia-cuda-nvrtc-cu12", "12.9.86"), 13: ("nvidia-cuda-nvrtc", "13.0.88")},
    "cublasLt.h": {12: ("nvidia-cublas-cu12", "12.9.1.4"), 13: ("nvidia-cublas", "13.1.0.3")},
    "nccl.h": {12: ("nvidia-nccl-cu12", "2.28.9"), 13: ("nvidia-nccl-cu13", "2.28.9")},
    "cudnn.h": {12: ("nvidia-cudnn-cu12", "9.19.0.56"), 13: ("nvidia-cudnn-cu13", "9.19.0.56")},
    "cudnn_frontend.h": {12: FRONTEND, 13: FRONTEND},
}


def say(text: str) -> None:
    print(f"[cuda] {text}", flush=True)


def toolkit_folders() -> list[Path]:
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda", "/opt/cuda"]
    return [Path(home) / "include" for home in homes if home]


def toolkit_major() -> int:
    """Of the toolkit that is there, else the newest that is known."""
    for folder in toolkit_folders():
        header = folder / "cuda_runtime_api.h"
        if header.exists() and (found := re.search(r"#define CUDART_VERSION\s+(\d+)", header.read_text(encoding="utf-8"))):
            return int(found[1]) // 1000
    return max(WANTED["nvrtc.h"])


def stamp_of(package: str, base: Path) -> Path:
    return base / f"{package}.stamp"


def kept_of(package: str, base: Path) -> list[str]:
    """What is here of a package: its version, then its files."""
    stamp = stamp_of(package, base)
    return stamp.read_text(encoding="utf-8").splitlines() if stamp.exists() else []


def drop(package: str, base: Path) -> None:
    files = kept_of(package, base)[1:]
    stamp_of(package, base).unlink(missing_ok=True)
    for file in files:
        (base / "include" / file).unlink(missing_ok=True)


def fetch(package: str, version: str, into: Path) -> list[str]:
    """Unpacks the include/ tree of a wheel, the folder above it left off. Returns its files."""
    files = []
    with tempfile.TemporaryDirectory(dir=into.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet", "--no-deps", "--no-cache-dir"]
        command += ["--only-binary", ":all:", "--dest", folder, f"{package}=={version}"]
        if subprocess.run(command, check=False).returncode != 0:
            sys.exit(f"[cuda] pip could not download {package} {version} (network?). Run this again.")
        for wheel in Path(folder).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.infolist():
                    _, found, rest = f"/{member.filename}".partition("/include/")
                    if not found or member.is_dir() or ".." in Path(rest).parts:
                        continue
                    to = into / rest
                    to.parent.mkdir(parents=True, exist_ok=True)
                    with archive.open(member) as source, to.open("wb") as target:
                        shutil.copyfileobj(source, target)
                    files.append(rest)
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    base = (ROOT / ".venv").resolve().parent / ".cache" / "cuda-headers"
    include = base / "include"
    include.mkdir(parents=True, exist_ok=True)
    major = toolkit_major()
    for header, packages in WANTED.items():
        if major not in packages:
            sys.exit(f"[cuda] the toolkit is CUDA {major}; headers are known for {', '.join(map(str, packages))}")
        package, version = packages[major]
        if not args.all and any((folder / header).exists() for folder in toolkit_folders()):
            continue
        if kept_of(package, base)[:1] == [version] and (include / header).exists():
            continue
        for one, _ in packages.values():  # those of other libraries are left alone: other working trees may use them
            drop(one, base)
        say(f"headers of {package} {version} (its wheel is downloaded, hundreds of MB, and deleted again)")
        files = fetch(package, version, include)
        if not (include / header).exists():
            sys.exit(f"[cuda] {package} {version} holds no {header}")
        stamp_of(package, base).write_text("\n".join([version, *files]) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
