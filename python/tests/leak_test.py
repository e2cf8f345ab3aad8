"""Cycles of build, load, run and close leave memory, descriptors and threads as they were. bench/python_leaks.py does ten thousand."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "bench" / "python_leaks.py"


@pytest.mark.parametrize(("isolate", "ranks", "cycles"), [("threads", 1, 400), ("threads", 2, 300), ("processes", 2, 30)])
def test_flat(isolate, ranks, cycles):
    command = [sys.executable, PROGRAM, "--isolate", isolate, "--ranks", str(ranks), "--cycles", str(cycles)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_refused_arrays_are_given_back(add_model):
    """References of inputs, outputs and exporters after calls that fail and calls that do not."""
    import gc

    import numpy as np
    import tandem

    a, bad = np.ones((3, 4), np.float32), np.ones((3, 5), np.float32)
    for mesh in (None, {"dp": 2}):
        with tandem.load(tandem.build(add_model, mesh=mesh)) as model:
            model(a=a, b=a)
            before = sys.getrefcount(a), sys.getrefcount(bad)
            for _ in range(10):
                model(a=a, b=a)
                for inputs in ({"a": a, "b": bad}, {"a": a}, {"a": a, "b": "b"}, {"a": a, "b": a, "c": bad}):
                    with pytest.raises(tandem.Error):
                        model(inputs)
                with pytest.raises(tandem.Error):
                    model.run({"a": a, "b": a}, {"y": bad})
        del inputs
        gc.collect()
        assert (sys.getrefcount(a), sys.getrefcount(bad)) == before
