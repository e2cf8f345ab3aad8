"""One NCCL in a process, whoever loads it first and with nothing set. Skipped, with the reason, where there is no GPU or no torch."""

import os
import subprocess
import sys

import pytest
import tandem
from conftest import MODELS

pytestmark = pytest.mark.skipif(tandem.gpu_count() == 0, reason="this machine has no GPU, or the package was built without CUDA")

PROGRAM = """
import sys

def ours():
    import tandem
    tandem.build(sys.argv[2], device="cuda")  # looks at all libraries, whose versions it writes down

def theirs():
    import torch
    torch.cuda.init()

for load in ((ours, theirs) if sys.argv[1] == "ours" else (theirs, ours)):
    load()
print(*sorted({line.split()[-1] for line in open("/proc/self/maps") if "/libnccl.so" in line}), sep="\\n")
"""


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_one_nccl(first):
    pytest.importorskip("torch", reason="torch is not installed")
    bare = {name: value for name, value in os.environ.items() if name not in ("TANDEM_CUDA_LIBRARIES", "LD_PRELOAD", "NCCL_LIB")}
    command = [sys.executable, "-c", PROGRAM, first, str(MODELS / "mlp_dynamo.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=bare)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 1, done.stdout
