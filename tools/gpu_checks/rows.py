"""What every stage has: the rows it gives, the packed programs, the time that is left."""

import argparse
import json
import os
import re
import subprocess
import tarfile
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass
class Row:
    stage: str
    name: str
    status: str  # passed, failed, skipped
    seconds: float = 0
    text: str = ""
    values: dict = field(default_factory=dict)
    programs: str = ""  # the digest of the pack


class Check:
    def __init__(self, args: argparse.Namespace) -> None:
        self.end = time.monotonic() + args.budget
        self.pack = args.pack.resolve()
        self.manifest = json.loads((self.pack / "manifest.json").read_text())
        args.out.mkdir(parents=True, exist_ok=True)
        self.file = (args.out / "rows.jsonl").open("w")
        self.rows: list[Row] = []
        self.known: dict[tuple[str, str], Row] = {}
        if args.resume:
            for line in args.resume.read_text().splitlines():
                row = Row(**json.loads(line))
                if row.status == "passed" and row.programs == self.manifest["programs"]:
                    self.known[row.stage, row.name] = row
        self.unpacked = Path(tempfile.mkdtemp(prefix="tandem-"))
        with tarfile.open(self.pack / "pack.tar.xz") as pack:
            pack.extractall(self.unpacked, filter="data")
        self.environment = {
            **os.environ,
            "LD_LIBRARY_PATH": f"{self.unpacked / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}",
            "TANDEM_TEST_DEVICE": "cuda",
            "TANDEM_TEST_MODELS": str(ROOT / "tests/models"),
        }

    def left(self) -> float:
        return self.end - time.monotonic()

    def add(self, row: Row) -> None:
        row.programs = self.manifest["programs"]
        self.rows.append(row)
        self.file.write(json.dumps(asdict(row)) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def call(self, command: list[str], limit: float) -> tuple[int, str, float]:
        """Exit status, output and seconds; 124 where it took longer than `limit` or the budget."""
        begin = time.monotonic()
        limit = max(1.0, min(limit, self.left()))
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=self.environment, cwd=ROOT, errors="replace")
            return done.returncode, done.stdout + done.stderr, time.monotonic() - begin
        except subprocess.TimeoutExpired as late:
            text = (late.stdout or b"").decode(errors="replace") if isinstance(late.stdout, bytes) else (late.stdout or "")
            return 124, text + f"\nno end after {limit:.0f} s", time.monotonic() - begin

    def program(self, name: str) -> str:
        return str(self.unpacked / "bin" / name)


def gpus() -> int:
    """How many this machine has."""
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return len(re.findall(r"^GPU ", listed.stdout, re.MULTILINE))
