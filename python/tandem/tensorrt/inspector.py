"""EngineInspector: what an engine tells of its layers."""

from __future__ import annotations

import json
from typing import Any

from ..errors import InvalidArgumentError
from .closed import Closed
from .enums import LayerInformationFormat

__all__ = ["EngineInspector"]


class EngineInspector(Closed):
    """Tells of the steps of an engine; ICudaEngine.create_engine_inspector makes one."""

    _missing = {"execution_context": "what an inspector tells does not depend on a context"}

    def __init__(self, described: dict[str, Any]) -> None:
        self._described = described

    def get_layer_information(self, layer_index: int, format: LayerInformationFormat) -> str:
        """One step: its name and kernel in a line, or everything as JSON."""
        steps = self._described["steps"]
        if not 0 <= layer_index < len(steps):
            raise InvalidArgumentError(f"there is no layer {layer_index}; there are {len(steps)}")
        step = steps[layer_index]
        if format == LayerInformationFormat.ONELINE:
            return f"{step['op']} {step['node']} [{step['kernel']}]\n"
        return json.dumps({"Name": step["node"] or step["op"], "LayerType": step["op"], **step}, indent=2)

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        """All steps, a line each; or all that `tandem inspect --json` tells, with mesh, collectives and bytes of every rank, as JSON."""
        if format == LayerInformationFormat.ONELINE:
            return "".join(self.get_layer_information(i, format) for i in range(len(self._described["steps"])))
        return json.dumps({"Layers": [step["node"] or step["op"] for step in self._described["steps"]], **self._described}, indent=2)
