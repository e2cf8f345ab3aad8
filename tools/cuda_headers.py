#!/usr/bin/env python3
"""Headers of the CUDA libraries that Tandem opens when it runs: those that the toolkit lacks, taken from NVIDIA's wheels on PyPI.

tools/cuda_headers.py              fetch what is missing into .cache/cuda-headers/include; a second run returns at once
tools/cuda_headers.py --all        fetch all of them, whatever the toolkit has

Only the headers are kept: the libraries are not needed to build, and the wheels are deleted. The folder lies beside the .venv that is used,
so that working trees which share one share both.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WANTED = [  # header, package, version
    ("nvrtc.h", "nvidia-cuda-nvrtc", "13.0.88"),
    ("cublasLt.h", "nvidia-cublas", "13.1.0.3"),
    ("nccl.h", "nvidia-nccl-cu13", "2.28.9"),
    ("cudnn.h", "nvidia-cudnn-cu13", "9.19.0.56"),
    ("cudnn_frontend.h", "nvidia-cudnn-frontend", "1.32.0"),
]


def say(text: str) -> None:
    print(f"[cuda] {text}", flush=True)


def toolkit_folders() -> list[Path]:
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda", "/opt/cuda"]
    return [Path(home) / "include" for home in homes if home]


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
    for header, package, version in WANTED:
        if not args.all and any((folder / header).exists() for folder in toolkit_folders()):
            continue
        # What is here of the package: its version, then its files. Other packages are left alone: other working trees may use them.
        stamp = base / f"{package}.stamp"
        have = stamp.read_text(encoding="utf-8").splitlines() if stamp.exists() else []
        if have[:1] == [version] and (include / header).exists():
            continue
        stamp.unlink(missing_ok=True)
        for file in have[1:]:
            (include / file).unlink(missing_ok=True)
        say(f"headers of {package} {version} (its wheel is downloaded, hundreds of MB, and deleted again)")
        files = fetch(package, version, include)
        if not (include / header).exists():
            sys.exit(f"[cuda] {package} {version} holds no {header}")
        stamp.write_text("\n".join([version, *files]) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
