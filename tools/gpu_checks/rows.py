"""What every stage has: the rows it gives, the packed programs, the time that is left."""

import argparse
import datetime
import itertools
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

# The repository, or the folder that tools/gpu_pack.sh has filled.
ROOT = Path(__file__).resolve().parent.parent.parent
PACK = ROOT if (ROOT / "manifest.json").exists() else ROOT / "build/gpu"


@dataclass
class Row:
    stage: str
    name: str
    status: str  # passed, failed, skipped
    seconds: float = 0
    text: str = ""
    values: dict = field(default_factory=dict)
    group: str = ""  # the command that gave it, where one gives many; a row of that name says that it came to its end
    programs: str = ""  # the digest of the pack
    gpu: str = ""  # the name of its kind; of several kinds all of them
    uuid: str = ""  # of the GPUs that it could use, by commas; what needs one uses the first
    begun: str = ""  # when this call of tools/gpu_check.py began, in UTC; with `uuid` it tells calls apart

    def is_end(self) -> bool:
        """Not of anything that was run, but of a group that came to its end."""
        return self.group != "" and self.name == self.group


class Check:
    """What an earlier run of the same programs has passed is kept from the beginning, and is not run again: rows are `known` by stage and
    name, groups of rows by group_is_known(). Rows of `probe` are kept too, but each run has its own: they tell of the GPU that it is on."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.end = self.stage_end = time.monotonic() + args.budget
        self.pack = args.pack.resolve()
        self.manifest = json.loads((self.pack / "manifest.json").read_text())
        before = self.rows_of(args.resume) if args.resume else []
        self.groups = {(row.stage, row.group) for row in before if row.is_end() and row.status == "passed"}
        kept = [row for row in before if row.status == "passed" or (row.stage, row.group) in self.groups]
        self.known = {(row.stage, row.name): row for row in kept if row.stage != "probe"}
        args.out.mkdir(parents=True, exist_ok=True)
        self.file = (args.out / "rows.jsonl").open("w")  # which may be the file that --resume names
        self.rows: list[Row] = []
        self.jobs = args.jobs
        self.ports = itertools.count(20001)  # where ranks meet: another for each meeting, and several meet at a time
        visible = visible_gpus()
        self.gpu, self.uuid = " and ".join(sorted({name for name, _ in visible})), ",".join(uuid for _, uuid in visible)
        self.begun = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for row in [*(row for row in kept if row.stage == "probe"), *self.known.values()]:
            self.keep(row)
        self.unpacked = Path(tempfile.mkdtemp(prefix="tandem-"))
        with tarfile.open(self.pack / "pack.tar.xz") as pack:
            pack.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.2 has none
            pack.extractall(self.unpacked)
        self.environment = {
            **os.environ,
            "LD_LIBRARY_PATH": f"{self.unpacked / 'lib'}:{os.environ.get('LD_LIBRARY_PATH', '')}",
            "TANDEM_TEST_DEVICE": "cuda",
            "TANDEM_TEST_MODELS": str(ROOT / "tests/models"),
        }

    def group_is_known(self, stage: str, group: str) -> bool:
        return (stage, group) in self.groups

    def rows_of(self, file: Path) -> list[Row]:
        rows = [Row(**json.loads(line)) for line in file.read_text().splitlines()]
        return [row for row in rows if row.programs == self.manifest["programs"]]

    def begin(self, seconds: float) -> None:
        """A stage, which has that long, and not longer than all of it."""
        self.stage_end = min(self.end, time.monotonic() + seconds)

    def left(self) -> float:
        return self.stage_end - time.monotonic()

    def is_over(self) -> bool:
        return time.monotonic() >= self.end

    def add(self, row: Row) -> None:
        if (row.stage, row.name) not in self.known:
            row.programs, row.gpu, row.uuid, row.begun = self.manifest["programs"], self.gpu, self.uuid, self.begun
            self.keep(row)

    def keep(self, row: Row) -> None:
        self.rows.append(row)
        self.file.write(json.dumps(asdict(row)) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def call_ranks(self, command: list[str], limit: float, more: dict[str, str], count: int) -> tuple[int, str, float]:
        """The same for `count` processes at a time, each with its rank in the environment; the first status that is not 0."""
        world = {"TANDEM_TEST_RANKS_AS": "processes", "WORLD_SIZE": str(count), "MASTER_PORT": str(next(self.ports))}
        with ThreadPoolExecutor(count) as pool:
            ranks = [pool.submit(self.call, command, limit, {**more, **world, "RANK": str(rank)}) for rank in range(count)]
            done = [rank.result() for rank in ranks]
        text = "\n".join(f"rank {rank}:\n{output}" if status != 0 else output for rank, (status, output, _) in enumerate(done))
        return next((status for status, _, _ in done if status != 0), 0), text, max(seconds for _, _, seconds in done)

    def call(self, command: list[str], limit: float, more: dict[str, str] | None = None) -> tuple[int, str, float]:
        """Exit status, output and seconds; 124 where it took longer than `limit` or the budget, 127 where there is no such program."""
        begin = time.monotonic()
        limit = max(1.0, min(limit, self.left()))
        environment = {**self.environment, **(more or {})}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment, cwd=ROOT, errors="replace")
            return done.returncode, done.stdout + done.stderr, time.monotonic() - begin
        except subprocess.TimeoutExpired as late:
            text = (late.stdout or b"").decode(errors="replace") if isinstance(late.stdout, bytes) else (late.stdout or "")
            return 124, text + f"\nno end after {limit:.0f} s", time.monotonic() - begin
        except OSError as error:
            return 127, str(error), time.monotonic() - begin

    def program(self, name: str) -> str:
        return str(self.unpacked / "bin" / name)


def visible_gpus() -> list[tuple[str, str]]:
    """Name and uuid of those that CUDA_VISIBLE_DEVICES leaves of this machine's, in its order."""
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout if shutil.which("nvidia-smi") else ""
    found = re.findall(r"^GPU (\d+): (.*?)(?: \(UUID: (\S+)\))?$", listed, re.MULTILINE)
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return [(name, uuid) for _, name, uuid in found]
    visible = []
    for word in wanted.split(","):
        one = next(
            ((name, uuid) for index, name, uuid in found if word == index or (word.startswith("GPU-") and uuid.startswith(word))), None
        )
        if one is None:  # CUDA takes none of those that follow either
            break
        visible.append(one)
    return visible


def gpus() -> int:
    """How many it can use."""
    return len(visible_gpus())
