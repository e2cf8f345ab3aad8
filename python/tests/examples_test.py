"""The examples run, are short, and pass mypy --strict against the stubs of the package."""

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples" / "python").glob("*.py"))


def run(*command: object, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def in_folder(example: str, folder: Path) -> str:
    (folder / "tests").symlink_to(ROOT / "tests")
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "python" / example], cwd=folder, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_first_run(tmp_path):
    assert re.search(r"\(.*\) mean -?\d", in_folder("first_run.py", tmp_path))


def test_sharded_mlp(tmp_path):
    out = in_folder("sharded_mlp.py", tmp_path)
    assert "all_reduce over tp" in out and "largest difference" in out
    one, two = (int(number) for number in re.findall(r"ranks?: (\d+) bytes of weights", out))
    assert two < one


def test_embedding_search(tmp_path):
    said = in_folder("embedding_search.py", tmp_path).splitlines()
    nearness, found = zip(*(line.split("  ", 1) for line in said), strict=True)
    assert nearness[0] == "1.00" and len(found) == 6 and "killed" in found[1]  # the query, and what is nearest
    assert list(nearness) == sorted(nearness, reverse=True) and float(nearness[1]) > 0.6
    drawn = ElementTree.parse(tmp_path / "search.svg").getroot()
    dots = {dot[0].text: (float(dot.get("cx")), float(dot.get("cy"))) for dot in drawn.iter("{http://www.w3.org/2000/svg}circle")}
    assert len(dots) > 100 and all(0 <= x <= 1000 and 0 <= y <= 600 for x, y in dots.values())
    assert sorted(dots, key=lambda text: dots[text][1])[:6] == list(found)


def test_ranks_as_torchrun_starts_them(tmp_path):
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    processes = []
    for rank in range(2):
        environment = {
            **os.environ,
            "RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "29512",
        }
        command = [sys.executable, ROOT / "examples" / "python" / "ranks.py"]
        processes.append(
            subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    said = []
    for rank, process in enumerate(processes):
        out, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
        assert out.startswith(f"rank {rank} of 2: ")
        said.append(out.split(": ", 1)[1])
    assert said[0] == said[1]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_short(example):
    code = [line for line in example.read_text().splitlines() if line.strip() and not line.strip().startswith(("#", '"""'))]
    assert len(code) <= 25


@pytest.mark.parametrize("folder", ["python", "tensorrt", "tensorrt/gpu", "minilm"])
def test_types_of_the_examples(tmp_path, folder):
    programs = sorted((ROOT / "examples" / folder).glob("*.py"))
    others = ["--ignore-missing-imports"] if folder in ("tensorrt/gpu", "minilm") else []  # torch, where it is not; libraries without types
    run("-m", "mypy", "--strict", *others, "--cache-dir", tmp_path, *programs, MYPYPATH=os.environ["PYTHONPATH"])


def test_types_of_the_package(tmp_path):
    run("-m", "mypy", "--strict", "--ignore-missing-imports", "--cache-dir", tmp_path, "-p", "tandem", MYPYPATH=os.environ["PYTHONPATH"])


def test_mypy_sees_a_mistake(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import tandem\ntandem.load('x', ranks='two')\ntandem.build('x').save()\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path, wrong],
        env={**os.environ, "MYPYPATH": os.environ["PYTHONPATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Found 2 errors" in done.stdout, done.stdout
