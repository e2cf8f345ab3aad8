"""Each code line of TensorRT's documents on multi-device inference and attention, in a program that runs: only what it imports is changed."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "tensorrt"

# As the documents print them, and the programs that hold them.
PYTHON = [
    ("collective_layer.num_ranks = num_gpus", "collective.py"),
    ("attention.num_ranks = num_gpus", "attention.py"),
    ("context.set_communicator(nccl_comm)", "collective.py"),
    ("context.execute_async_v3(stream_ptr)", "collective.py"),
    (
        """# Add attention layer and set number of ranks
attention = network.add_attention_v2(query, key, value, trt.AttentionNormalizationOp.SOFTMAX, trt.CausalMaskKind.NONE)
attention.num_ranks = num_gpus
""",
        "attention.py",
    ),
    (
        """# At runtime, on each rank, set communicator and run inference
context.set_communicator(nccl_comm)
context.execute_async_v3(stream)
""",
        "attention.py",
    ),
]
CPP = [
    ("collectiveLayer->setNbRanks(numGpus);", "collectives.cpp"),
    ("attention->setNbRanks(numGpus);", "attention.cpp"),
    ("context->setCommunicator(ncclComm);", "collectives.cpp"),
    ("context->enqueueV3(stream);", "collectives.cpp"),
    (
        """// Add attention layer and set number of ranks
auto attention = network->addAttentionV2(query, key, value, AttentionNormalizationOp::kSOFTMAX, CausalMaskKind::kNONE);
""",
        "attention.cpp",
    ),
    (
        """// At runtime, on each rank, set communicator and run inference
context->setCommunicator(ncclComm);
context->enqueueV3(stream);
""",
        "attention.cpp",
    ),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_processes(program: str, ranks: int, *arguments: str) -> list[str]:
    """What the ranks of a program print, each a process that is told its place as torchrun tells it."""
    common = {**os.environ, "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, str(EXAMPLES / program), *arguments]
    started = [
        subprocess.Popen(
            command, env={**common, "RANK": str(r), "LOCAL_RANK": str(r)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for r in range(ranks)
    ]
    outputs = [process.communicate(timeout=120) for process in started]
    for rank, (process, (_, errors)) in enumerate(zip(started, outputs, strict=True)):
        assert process.returncode == 0, f"rank {rank}: {errors}"
        assert errors == ""
    return [printed for printed, _ in outputs]


def lines(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


@pytest.mark.parametrize(("snippet", "program"), PYTHON + CPP)
def test_lines_are_as_printed(snippet, program):
    assert lines(snippet) in lines((EXAMPLES / program).read_text())


@pytest.mark.parametrize("program", sorted({program for _, program in PYTHON + CPP}))
def test_only_imports_differ(program):
    importing = re.compile(r"^(import |from \S+ import |#include )")
    ours = [line for line in (EXAMPLES / program).read_text().splitlines() if "tandem" in line]
    assert ours and all(importing.match(line) for line in ours)


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("program", ["collective.py", "attention.py"])
def test_programs_run(program, ranks):
    printed = run_processes(program, ranks)
    assert all(f"rank {rank} of {ranks}" in text for rank, text in enumerate(printed))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_sharded_model(ranks):
    run_processes("sharded_model.py", ranks)


def test_alone_without_a_launcher():
    bare = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run([sys.executable, str(EXAMPLES / "collective.py")], env=bare, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "rank 0 of 1" in done.stdout and done.stderr == ""
