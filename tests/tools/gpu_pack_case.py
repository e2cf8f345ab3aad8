"""A pack whose programs are scripts, for tests of tools/gpu_check.py and tools/gpu_results.py: no GPU is needed."""

import json
import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[2] / "tools"
sys.path.insert(0, str(TOOLS))

# Lists three tests; each says which rows it ran, and leaves its name in a log. Bad fails while there is a file `bad`, Good there where
# memory is not aligned.
PROGRAM = """#!/bin/sh
case "$1" in
  --gtest_list_tests) printf 'Suite.\\n  Good\\n  Host\\n  Bad\\n'; exit 0;;
esac
name=${1#--gtest_filter=Suite.}
echo "$name$TANDEM_TEST_UNALIGNED" >> @LOG@
case "$name" in
  Good) [ -z "$TANDEM_TEST_UNALIGNED" ] || [ ! -e @BAD@ ] || exit 1
    echo '[ cuda ] 99 rows on cuda_matmul'; echo '[ cuda ] 8 rows on cuda_reduce';;
  Host) echo '[ cuda ] 1 rows on cuda_host (Reduce i32): it takes no roots or logarithms of integers; and (much) more';;
  Bad) [ ! -e @BAD@ ] || exit 1; echo '[ cuda ] 2 rows on cuda_matmul';;
esac
"""


# Tests of ranks: each process says which it is and what carries collectives.
RANKS = """#!/bin/sh
case "$1" in
  --gtest_list_tests) printf 'World/Ranks.\\n  Cell/2\\n  Cell/4\\n'; exit 0;;
esac
echo "$TANDEM_GPU_GROUP:${TANDEM_TEST_RANKS_AS:-threads}:$RANK:$WORLD_SIZE" >> @LOG@
echo '[ cuda ] 5 rows on cuda_attention_ring'
echo "[ cuda ] 2 rows on cuda_host (Attention f32): $(cat @WHY@)"
[ ! -e @BAD@ ] || [ "$RANK" != 1 ] || exit 3
"""
# Tests of groups: each says what it was told, and how many others ran when it began and when it ended.
GROUPS = """#!/bin/sh
case "$1" in
  --gtest_list_tests) printf 'Peers.\n  Quick\n  Quick2\n  Quick3\n  TenThousandReplays\n  AProcessThatIsKilledIsNamed\n'; exit 0;;
esac
name=${1#--gtest_filter=Peers.}
mkdir -p @RUNNING@; touch @RUNNING@/$$; before=$(ls @RUNNING@ | wc -l)
sleep 0.3
after=$(ls @RUNNING@ | wc -l); rm @RUNNING@/$$
how=together
[ $before != 1 ] || [ $after != 1 ] || how=alone
for one in $(echo "$name" | tr : ' '); do
  one=${one#Peers.}
  echo "$one:${TANDEM_TEST_RANKS:-all}:${CUDA_DEVICE_MAX_CONNECTIONS:-8}:$how" >> @LOG@
  echo "[ RUN      ] Peers.$one"
  echo '[ cuda ] 5 rows on peer'
  [ ! -e @BAD@ ] || [ $one != Quick2 ] || exit 3
  echo "[       OK ] Peers.$one (20 ms)"
done
"""
SUPERVISION = """#!/bin/sh
echo "$1 $2" >> @LOG@
echo '{"backend": "peer", "refused": "no way"}'
echo '{"name": "supervision 8 KB by nccl", "ranks": 2, "us": 8.1, "without_us": 8.0, "cost": 1.0125}'
[ ! -e @BAD@ ] || exit 1
"""
LISTED_WHY = "lengths are counted over the whole sequence; it is for split='qkv'"
TWO_GPUS = """#!/bin/sh
case "$1" in
  -L) printf 'GPU 0: one (UUID: GPU-1a)\\nGPU 1: another (UUID: GPU-2b)\\n';;
  *) printf 'one, 580.1, 345 MHz, GPU-1a\\nanother, 580.1, 345 MHz, GPU-2b\\n';;
esac
"""


class Case(unittest.TestCase):
    def setUp(self) -> None:
        held = tempfile.TemporaryDirectory()
        self.addCleanup(held.cleanup)
        self.folder = Path(held.name)
        self.log, self.bad, self.out = self.folder / "log", self.folder / "bad", self.folder / "out"
        self.why = self.folder / "why"
        self.why.write_text(LISTED_WHY)
        self.pack("programs of the first pack")

    def pack(self, programs: str, dirty: bool = False) -> None:
        binary = self.folder / "bin"
        binary.mkdir(exist_ok=True)
        places = {"LOG": self.log, "BAD": self.bad, "WHY": self.why, "RUNNING": self.folder / "running"}
        scripts = {
            "kernels_test": PROGRAM,
            "attention_ranks_test": RANKS,
            "peer_test": GROUPS,
            "gpu_group_tests": GROUPS.replace("Peers", "GroupTrouble"),
            "gpu_groups_bench": SUPERVISION,
        }
        for name, text in scripts.items():
            program = binary / name
            for word, place in places.items():
                text = text.replace(f"@{word}@", str(place))
            program.write_text(text)
            program.chmod(0o755)
        with tarfile.open(self.folder / "pack.tar.xz", "w:xz") as pack:
            pack.add(binary, "bin")
        manifest = {"commit": "abc1234", "dirty": dirty, "programs": programs}
        (self.folder / "manifest.json").write_text(json.dumps(manifest))

    def check(self, *words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, str(TOOLS / "gpu_check.py"), *words, "--pack", str(self.folder), "--out", str(self.out)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def rows(self) -> dict[str, str]:
        """Status by name; no row is there twice."""
        rows = [json.loads(line) for line in (self.out / "rows.jsonl").read_text().splitlines()]
        self.assertEqual(len(rows), len({(row["stage"], row["name"]) for row in rows}))
        return {row["name"]: row["status"] for row in rows}

    def ran(self) -> list[str]:
        names = sorted(self.log.read_text().split()) if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return names
