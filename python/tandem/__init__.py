"""Tandem: one model, sharded over several ranks, compiled into one engine file, run as if the ranks were one device.

    engine = tandem.build("model.onnx", mesh={"tp": 2})
    engine.save("model.tandem")
    with tandem.load("model.tandem", ranks=2) as model:
        outputs = model(input_ids=ids)

Arrays go in and come out without a copy where their layout allows it: numpy, torch, and whatever has DLPack or the buffer protocol.
"""

import sys as _sys

from ._core import Collective, Context, DeviceArray, Engine, Group, Model, Port, WeightMemory, gpu_count, is_engine_file, load_engine
from .building import build, load, time_kernels
from .errors import Error
from .mesh import Mesh
from .network import Network, Value, list_ops
from .team import Team

# A build without the GIL switches it on for an extension that does not say it can do without, unless its user forbids that.
if not getattr(_sys, "_is_gil_enabled", lambda: True)():
    raise ImportError("tandem needs the GIL, which this interpreter was told to leave off: start it without PYTHON_GIL=0 and -X gil=0")

__version__ = "0.1.0"
__all__ = [
    "Collective",
    "Context",
    "DeviceArray",
    "Engine",
    "Error",
    "Group",
    "Mesh",
    "Model",
    "Network",
    "Port",
    "Team",
    "Value",
    "WeightMemory",
    "build",
    "gpu_count",
    "is_engine_file",
    "list_ops",
    "load",
    "load_engine",
    "time_kernels",
]
