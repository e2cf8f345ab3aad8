#!/usr/bin/env python3
"""Checks the include table of docs/architecture.md: the table itself, every #include of every source file, every link line of
CMakeLists.txt.

tools/check_layers.py              check this repository; exit 1 and one line per violation
tools/check_layers.py --self-test  check that each kind of violation is found, on files made for it
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path

# X: what X may include besides itself and the public headers that those own.
ROWS = {
    "core": [],
    "graph": ["core"],
    "device": ["core"],
    "comm": ["core", "device"],
    "ops": ["core", "graph"],
    "kernels": ["core", "graph", "device", "comm", "ops"],
    "import": ["core", "graph", "ops"],
    "passes": ["core", "graph", "ops"],
    "plan": ["core", "graph"],
    "build": ["core", "graph", "device", "comm", "ops", "kernels", "plan"],
    "runtime": ["core", "graph", "device", "comm", "ops", "kernels", "plan"],
    "team": ["core", "graph", "device", "comm", "plan", "runtime"],
    "api/run": ["core", "graph", "device", "comm", "plan", "runtime", "team"],
    "api/build": ["api/run", "core", "graph", "device", "comm", "kernels", "team", "import", "passes", "ops", "build", "plan"],
    "serve": ["core"],
    "cli": ["serve"],
    "python": [],
    "examples": [],
}
FRONT_ENDS = {"serve", "cli", "python", "examples"}  # these may include every public header
UNCHECKED = {"tests", "bench"}

# include/tandem/NAME.h: the folder it belongs to.
PUBLIC_OWNER = {
    "types": "core",
    "error": "core",
    "deadline": "core",
    "collective": "core",
    "device_memory": "device",
    "custom_op": "ops",
    "group": "comm",
    "nccl": "comm",
    "host": "comm",
    "engine": "api/run",
    "team": "api/run",
    "context": "api/run",
    "gpu": "api/run",
    "profile": "api/run",
    "machine": "api/run",
    "network": "api/build",
    "ops": "api/build",
    "onnx": "api/build",
    "build": "api/build",
    "bench": "api/build",
    "tensorrt": "api/build",
    "tandem": "api/build",
}

# Headers of libraries that stay in one place: (what is included, files that may, where that is).
CUDA_PLACES = r"src/device/cuda/|src/comm/(peer|nccl)/|_cuda\.(cu|cuh|cpp|h)$"
FENCED = [
    (r"(oneapi/)?dnnl", r"src/ops/(.*_cpu\.(cpp|h)|(.*/)?onednn_[a-z_]+\.h)$", "src/ops: *_cpu.{cpp,h} and onednn_*.h"),
    (r"google/protobuf/|.*\.pb\.h$", r"src/import/onnx/|src/serve/", "src/import/onnx and src/serve"),
    (r"nccl", r"src/comm/nccl/", "src/comm/nccl"),
    (r"cudnn_frontend", r"src/ops/cudnn_graph_cuda\.cpp$", "src/ops/cudnn_graph_cuda.cpp"),
    (r"(cuda|cublas|cudnn|cutlass|cute/|cub/|thrust/|nvrtc|driver_types\.h)", CUDA_PLACES, "device/cuda, comm/peer, comm/nccl, *_cuda.*"),
]


def owner_of(header: str) -> str | None:
    """The folder that tandem/NAME.h belongs to; the parts of a header in tandem/NAME/ belong where it does."""
    parts = Path(header).parts
    return PUBLIC_OWNER.get(Path(parts[1]).stem)


KERNEL_FILE = re.compile(r"(_cpu|_cuda)(-inl)?\.[a-z]+$|/((no_)?cuda_)?kernels?\.[a-z]+$|/onednn_[a-z_]+\.h$")
OTHERS_QUOTED = ("hwy/",)  # Highway's own way of being included
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', re.M)
SUFFIXES = {".cpp", ".h", ".cu", ".cuh", ".def", ".inc", ".c", ".hpp"}


def layer_of(path: str) -> str | None:
    """The row of a file given by its path in the repository, or None if it has none."""
    parts = path.split("/")
    if path.startswith("include/tandem/"):
        return owner_of(path.removeprefix("include/"))
    if parts[0] != "src":
        return parts[0]
    if len(parts) < 3:
        return None
    if parts[1] == "api":
        return "/".join(parts[1:3]) if len(parts) > 3 else None
    if parts[1] == "ops" and KERNEL_FILE.search(path):
        return "kernels"
    return parts[1]


def check_quoted(path: str, layer: str, target: str) -> str | None:
    """Why `#include "target"` is not allowed in this file, or None."""
    public_file = path.startswith("include/")
    if ".." in target.split("/"):
        return "is relative: write the path from src/ or include/"
    if target.startswith("tandem/"):
        owner = owner_of(target)
        if owner is None:
            return "is a public header without an owner in PUBLIC_OWNER"
        if owner == layer or owner in ROWS[layer] or layer in FRONT_ENDS:
            return None
        return f"belongs to {owner}, which {layer} may not include"
    if public_file:
        return "is not public: public headers include public headers only"
    if layer in ("python", "examples") and "/" not in target:
        return None  # a file of its own folder
    if target.startswith(OTHERS_QUOTED):
        return None
    other = layer_of("src/" + target)
    if other is None or other not in ROWS:
        return "names no folder of src/: write the path from src/"
    if other == layer or other in ROWS[layer]:
        return None
    return f"belongs to {other}, which {layer} may not include"


def check_file(path: str, text: str) -> list[str]:
    layer = layer_of(path)
    if layer in UNCHECKED:
        return []
    if layer is None or layer not in ROWS:
        return [f"{path}: has no row in the include table"]
    found = []
    for match in INCLUDE.finditer(text):
        quote, target = match.groups()
        line = text.count("\n", 0, match.start()) + 1
        fence = next((f for f in FENCED if re.match(f[0], target)), None)
        reason = None
        if fence:
            reason = None if re.search(fence[1], path) else f"is allowed only in {fence[2]}"
        elif quote == '"' or target.startswith("tandem/"):
            reason = check_quoted(path, layer, target)
        if reason:
            found.append(f"{path}:{line}: {target} {reason}")
    return found


def check_links(text: str) -> list[str]:
    """A target links its row, all of it and nothing else of ours; libraries from outside are not looked at."""
    found = []
    for match in re.finditer(r"^\s*tandem_library\(\s*(\S+)\s(.*?)\)\s*$", text, re.M | re.S):
        row = match.group(1).replace("_", "/") if match.group(1).startswith("api_") else match.group(1)
        links = re.search(r"\bLINKS\b(.*?)(?=\b(?:SOURCES|MATCH|EXCLUDE)\b|$)", match.group(2), re.S)
        base = row if row in ROWS else row.split("/")[0]  # an optional part (comm/nccl) has the row of its folder
        if base not in ROWS:
            found.append(f"CMakeLists.txt: target {row} has no row in the include table")
            continue
        names = [link.replace("_", "/") if link.startswith("api_") else link for link in (links.group(1).split() if links else [])]
        for name in names:
            if name in ROWS and name != base and name not in ROWS[base] and base not in FRONT_ENDS:
                found.append(f"CMakeLists.txt: {row} links {name}, which its row does not allow")
        missing = [name for name in ROWS[base] if name not in names]
        if row == base and missing:
            found.append(f"CMakeLists.txt: {row} does not link {' '.join(missing)}, which its row lists")
    return found


def check_table(text: str) -> list[str]:
    """The table in docs/architecture.md says what ROWS says. Two columns of "X, Y ← A B", set apart by two blanks or more."""
    written = {}
    for cell in re.findall(r"(?:^|  )((?:[a-z/]+, )*[a-z/]+) +← ([^\n]+?)(?=  +\S|$)", text, re.M):
        for name in cell[0].split(", "):
            written[name] = cell[1]
    found = []
    for row, allowed in ROWS.items():
        words = re.findall(r"[a-z/]+", written.get(row, "").replace("include/tandem", "")) if row not in FRONT_ENDS else []
        if row not in written:
            found.append(f"docs/architecture.md: the table has no row {row}")
        elif row not in FRONT_ENDS and sorted(words) != sorted(allowed):
            found.append(f"docs/architecture.md: row {row} is '{' '.join(words)}', the check has '{' '.join(allowed)}'")
    return found


def check(root: Path) -> tuple[list[str], int]:
    files = [p for top in ("src", "include", "python", "examples") for p in sorted((root / top).rglob("*")) if p.suffix in SUFFIXES]
    found = []
    for file in files:
        found += check_file(file.relative_to(root).as_posix(), file.read_text(encoding="utf-8"))
    cmake = root / "CMakeLists.txt"
    if cmake.exists():
        found += check_links(cmake.read_text(encoding="utf-8"))
    table = root / "docs" / "architecture.md"
    if table.exists():
        found += check_table(table.read_text(encoding="utf-8"))
    return found, len(files)


# (file, its text, the words that must appear in the one violation; none: it must pass)
SELF_TEST = [
    ("src/core/a.cpp", '#include "core/b.h"\n#include "tandem/error.h"\n#include <vector>\n', None),
    ("src/core/a.cpp", '#include "graph/graph.h"\n', "graph, which core may not"),
    ("src/core/a.cpp", '// before\n  #  include "graph/graph.h"\n', "a.cpp:2"),
    ("src/graph/a.cpp", '#include "ops/ops.h"\n', "ops, which graph may not"),
    ("src/graph/a.cpp", '#include "../ops/ops.h"\n', "relative"),
    ("src/graph/a.cpp", '#include "graph.h"\n', "write the path"),
    ("src/graph/a.cpp", "#include <tandem/engine.h>\n", "api/run, which graph may not"),
    ("src/ops/norm/a.cpp", '#include "device/cpu/thread_pool.h"\n', "device, which ops may not"),
    ("src/ops/norm/a.cpp", '#include "ops/kernel.h"\n', "kernels, which ops may not"),
    ("src/ops/norm/a_cpu.cpp", '#include "device/cpu/thread_pool.h"\n#include "comm/group.h"\n#include "ops/kernel.h"\n', None),
    ("src/ops/norm/a_cpu.cpp", '#include "runtime/context.h"\n', "runtime, which kernels may not"),
    ("src/ops/matmul/a_cpu.cpp", "#include <oneapi/dnnl/dnnl.hpp>\n#include <dnnl.hpp>\n", None),
    ("src/ops/matmul/onednn_a.h", '#include <dnnl.hpp>\n#include "device/cpu/thread_pool.h"\n', None),
    ("src/ops/a_cpu-inl.h", '#include "hwy/highway.h"\n#include "ops/b_cpu.h"\n', None),
    ("src/runtime/a.cpp", "#include <dnnl.hpp>\n", "allowed only in src/ops"),
    ("src/import/onnx/a.cpp", '#include "onnx-ml.pb.h"\n#include <google/protobuf/arena.h>\n', None),
    ("src/passes/a.cpp", '#include "onnx-ml.pb.h"\n', "allowed only in src/import/onnx"),
    ("src/device/cuda/a.cpp", "#include <cuda_runtime.h>\n", None),
    ("src/device/a.cpp", "#include <cuda_runtime.h>\n", "allowed only in device/cuda"),
    ("src/comm/peer/a.cpp", "#include <nccl.h>\n", "allowed only in src/comm/nccl"),
    ("src/ops/cudnn_graph_cuda.cpp", "#include <cudnn_frontend.h>\n", None),
    ("src/ops/conv/a_cuda.cpp", "#include <cudnn_frontend.h>\n", "allowed only in src/ops/cudnn_graph_cuda.cpp"),
    ("src/api/run/a.cpp", '#include "team/team.h"\n#include "tandem/engine.h"\n', None),
    ("src/api/run/a.cpp", '#include "passes/pipeline.h"\n', "passes, which api/run may not"),
    ("src/api/run/a.cpp", '#include "api/build/build.h"\n', "api/build, which api/run may not"),
    ("src/api/build/a.cpp", '#include "passes/pipeline.h"\n#include "api/run/model.h"\n', None),
    ("src/cli/a.cpp", '#include "tandem/build.h"\n#include "cli/verbs.h"\n', None),
    ("src/cli/a.cpp", '#include "core/check.h"\n', "core, which cli may not"),
    ("src/a.cpp", "\n", "no row"),
    ("src/misc/a.cpp", "\n", "no row"),
    ("include/tandem/engine.h", '#include "tandem/types.h"\n', None),
    ("include/tandem/engine.h", '#include "core/tensor.h"\n', "not public"),
    ("include/tandem/types.h", '#include "tandem/engine.h"\n', "api/run, which core may not"),
    ("include/tandem/stray.h", "\n", "no row"),
    ("tests/a.cpp", '#include "passes/pipeline.h"\n', None),
    ("CMakeLists.txt", "tandem_library(graph SOURCES src/graph LINKS core)\n", None),
    ("CMakeLists.txt", "tandem_library(api_run SOURCES src/api/run\n  LINKS core graph device comm plan runtime team x::y)\n", None),
    ("CMakeLists.txt", "tandem_library(ops SOURCES src/ops LINKS graph EXCLUDE core)\n", "ops does not link core"),
    ("CMakeLists.txt", "tandem_library(graph SOURCES src/graph LINKS core ops)\n", "graph links ops"),
    ("CMakeLists.txt", "tandem_library(misc SOURCES src/misc)\n", "target misc has no row"),
]


def self_test() -> int:
    failed = 0
    for path, text, words in SELF_TEST:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            found, _ = check(Path(folder))
        ok = not found if words is None else len(found) == 1 and words in found[0]
        if not ok:
            failed += 1
            print(f"self-test: {path} with {text!r}: expected {words!r}, found {found}")
    print(f"check_layers self-test: {len(SELF_TEST) - failed} passed, {failed} failed")
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--self-test", action="store_true")
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    args = parser.parse_args()
    if args.self_test:
        return self_test()
    found, count = check(args.root)
    for line in found:
        print(line)
    print(f"check_layers: {count} files, {len(found)} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
