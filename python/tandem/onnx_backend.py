"""ONNX's own Backend interface, so that what is written against it (ONNX's test suite among others) runs on tandem.

    import tandem.onnx_backend as backend
    outputs = backend.run_model(onnx.load("model.onnx"), [x])
    outputs = backend.prepare(onnx.load("model.onnx"), ranks=2).run([x])       # the first dimension of the inputs split over two ranks

Needs the package onnx.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import defs, helper, version_converter
from onnx.backend.base import Backend, BackendRep, Device, DeviceType

from ._core import Model
from .building import build, load
from .errors import InvalidArgumentError, UnsupportedError

__all__ = ["TandemBackend", "TandemRep", "is_compatible", "prepare", "run_model", "run_node", "supports_device"]


class TandemRep(BackendRep):
    """A model that is ready to run. `model` is the tandem.Model behind it."""

    def __init__(self, model: Model) -> None:
        """Takes a started model, and closes it when it is let go."""
        self.model = model
        self._inputs = [port.name for port in model.engine.inputs]
        self._outputs = [port.name for port in model.engine.outputs]

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Runs it once: arrays in the order of the model's inputs, or by name; numpy arrays in the order of its outputs come back."""
        if isinstance(inputs, (list, tuple)):
            if len(inputs) != len(self._inputs):
                raise InvalidArgumentError(f"{len(inputs)} inputs are given, the model has {len(self._inputs)}: {', '.join(self._inputs)}")
            inputs = dict(zip(self._inputs, inputs, strict=True))
        outputs = self.model(inputs)
        return tuple(outputs[name] for name in self._outputs)


OLDEST_OPSET, NEWEST_OPSET = 8, 24


def _readable(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in an opset that tandem reads, where onnx has a way there; else as it is, to be refused by its opset."""
    newest = max((opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx")), default=0)
    if newest == 0 or OLDEST_OPSET <= newest <= NEWEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, min(max(newest, OLDEST_OPSET), NEWEST_OPSET))
    except (RuntimeError, version_converter.ConvertError):
        return model


def _first_dimensions(model: onnx.ModelProto) -> dict[str, str]:
    given = {tensor.name for tensor in model.graph.initializer}
    return {i.name: "0:dp" for i in model.graph.input if i.name not in given and len(i.type.tensor_type.shape.dim) > 0}


class TandemBackend(Backend):
    """The interface of onnx.backend.base.Backend; the functions of this module are its methods."""

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether models can be prepared for it: "CPU"."""
        try:
            return bool(Device(device).type == DeviceType.CPU)
        except (AttributeError, ValueError):
            return False

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether it can be prepared; what cannot is told by prepare."""
        try:
            cls.prepare(model, device, **kwargs).model.close()
        except UnsupportedError:
            return False
        return True

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", *, ranks: int = 1, **kwargs: Any) -> TandemRep:
        """Builds a model and starts its ranks.

        Args:
            model: in memory; one with external data is built from its file by tandem.build. One of an opset before 8 or after 24 is
            converted.
            device: "CPU".
            ranks: how many ranks; from 2 on the first dimension of every input is split over them, and what follows from it.
            kwargs: as tandem.build takes them; others, which backends are free to have, are not looked at.

        Raises:
            UnsupportedError: naming the node and the reason; also for another device, and where nothing is there to be split.
            InvalidModelError: of a model that breaks ONNX's rules.
        """
        if not cls.supports_device(device):
            raise UnsupportedError(f"device is '{device}', expected CPU")
        options = {name: value for name, value in kwargs.items() if name in ("shapes", "dtype", "disabled_passes", "kernels")}
        if ranks > 1:
            options |= {"mesh": {"dp": ranks}, "io": _first_dimensions(model)}
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            file.write_bytes(_readable(model).SerializeToString())
            return TandemRep(load(build(file, **options), threads=kwargs.get("threads", 0)))

    @classmethod
    def run_model(cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """prepare and run in one."""
        prepared = cls.prepare(model, device, **kwargs)
        with prepared.model:
            return prepared.run(inputs)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[Any, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Runs a single node on numpy arrays, of the opset `opset_version`, else of the op's newest version."""
        import numpy

        names = [name for name in node.input if name]
        arrays = inputs if isinstance(inputs, (list, tuple)) else [inputs[name] for name in names]
        if len(arrays) != len(names):
            raise InvalidArgumentError(f"{len(arrays)} inputs are given, the node takes {len(names)}")
        arrays = [numpy.asarray(array) for array in arrays]
        types = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in zip(names, arrays, strict=True)
        ]
        outputs = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
        opset = kwargs.pop("opset_version", 0) or defs.get_schema(node.op_type, node.domain).since_version
        opsets = [helper.make_opsetid(node.domain, opset)]
        model = helper.make_model(helper.make_graph([node], "node", types, outputs), opset_imports=opsets, ir_version=9)
        return cls.run_model(model, arrays, device, **kwargs)


prepare = TandemBackend.prepare
run_model = TandemBackend.run_model
run_node = TandemBackend.run_node
supports_device = TandemBackend.supports_device
is_compatible = TandemBackend.is_compatible
