"""TensorRT's names over tandem: programs written for TensorRT's multi-device inference run with `import tandem.tensorrt as trt`.

What differs, and why, is in docs/coming-from-tensorrt.md. In short: where there is no GPU engines run on CPU ranks, so that streams are 0
and addresses are those of host memory; a communicator is a tandem.Group; errors are exceptions (tandem.Error), which the logger hears
first; and a setting that cannot have its meaning here is an UnsupportedError that says so. hasattr() is False for names that are not here.
"""

from __future__ import annotations

from .. import __version__ as _tandem_version
from . import enums as _enums
from .builder import Builder
from .closed import UnsupportedNameError
from .config import IBuilderConfig
from .context import IExecutionContext, IOutputAllocator
from .dtypes import DataType, Dims, Weights, bfloat16, bool, float16, float32, int8, int32, int64, nptype, uint8, volume
from .enums import *  # noqa: F403
from .inspector import EngineInspector
from .layers import *  # noqa: F403
from .layers import __all__ as _layers
from .logger import ILogger, Logger
from .memory import IHostMemory
from .moving import *  # noqa: F403
from .moving import __all__ as _moving
from .network import INetworkDefinition
from .parser import ErrorCode, OnnxParser, ParserError
from .profile import IOptimizationProfile
from .progress import IProgressMonitor
from .ranks import IAttention, IDistCollectiveLayer
from .runtime import ICudaEngine, Runtime
from .tensor import ILayer, ITensor
from .timing import ITimingCache

# The TensorRT whose names these are, and what is behind them.
__version__ = f"11.1.0+tandem.{_tandem_version}"

__all__ = [
    *_enums.__all__,
    *_layers,
    *_moving,
    "Builder",
    "DataType",
    "Dims",
    "EngineInspector",
    "ErrorCode",
    "IAttention",
    "IBuilderConfig",
    "ICudaEngine",
    "IDistCollectiveLayer",
    "IExecutionContext",
    "IHostMemory",
    "ILayer",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IOutputAllocator",
    "IProgressMonitor",
    "ITensor",
    "ITimingCache",
    "Logger",
    "OnnxParser",
    "ParserError",
    "Runtime",
    "UnsupportedNameError",
    "Weights",
    "bfloat16",
    "bool",
    "float16",
    "float32",
    "int32",
    "int64",
    "int8",
    "nptype",
    "uint8",
    "volume",
]

_missing = {
    "Refitter": "`tandem refit` puts new weights into an engine file",
    "OnnxParserRefitter": "`tandem refit` puts new weights into an engine file",
    "init_libnvinfer_plugins": "there are no plugins",
    "get_plugin_registry": "there are no plugins",
    "get_builder_plugin_registry": "there are no plugins",
    "IInt8Calibrator": "there is no calibration; import a model with Q and DQ nodes",
    "IAlgorithmSelector": "kernels are named in tandem.build(kernels=...)",
    "IGpuAllocator": "ranks on the CPU allocate host memory",
    "IProfiler": "`tandem run --trace` writes a timeline",
    "IErrorRecorder": "errors are exceptions; the logger hears them too",
}


def __getattr__(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)
    raise UnsupportedNameError(f"tandem.tensorrt has no {name}: {_missing.get(name, 'there is nothing like it here')}")
