"""Opens the engine that engine_file_test wrote with the safetensors package and checks what a stranger sees."""

import json
import sys

from safetensors import safe_open

with safe_open(sys.argv[1], framework="np") as file:
    names = set(file.keys())
    metadata = file.metadata()
    assert metadata["tandem.format"] == "1" and metadata["tandem.mesh"] == "tp=2", metadata
    slices = {name for name in names if not name.startswith((".pad/", ".tandem/"))}
    assert slices == {"big", "norm", "packed", "q@tp=0", "q@tp=1", "table"}, slices
    assert file.get_tensor("q@tp=1").shape == (32, 48)
    assert file.get_tensor("packed").tobytes() == bytes((i * 7 + len("packed")) & 0x3F for i in range(3))
    assert file.get_tensor("table").tobytes() == bytes((i * 7 + len("table")) & 0x3F for i in range(40))
    plan = json.loads(file.get_tensor(".tandem/plan").tobytes())
    assert plan["programs"][0]["steps"][0]["node"] == "layer/q", plan
