#!/usr/bin/env bash
# check_install.sh [PYTHON]: one command installs the package into a new environment, where examples and program run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD python=${1:-/usr/bin/python3} environment=$PWD/build/clean_environment
rm -rf "$environment"
"$python" -m venv "$environment"
unset PYTHONPATH
# The compiler as the presets call it, so that ccache knows what they have built.
CC=cc CXX=$(command -v c++) "$environment/bin/pip" install --disable-pip-version-check --quiet "$root"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ln -s "$root/tests" "$work/tests"
cd "$work"
for example in first_run sharded_mlp; do "$environment/bin/python" "$root/examples/python/$example.py"; done
"$environment/bin/tandem" verify tests/models/mlp_dynamo.onnx --mesh tp=2 --cases tests/models/mlp_dynamo.safetensors
"$environment/bin/python" - <<'PROGRAM'
from pathlib import Path
import tandem
folder = Path(tandem.__file__).parent
for name in ("py.typed", "_core.pyi", "bin/tandem"):
    assert (folder / name).exists(), name
with tandem.load("tests/models/mlp_dynamo.onnx", isolate="processes") as model:
    print("processes:", {name: array.shape for name, array in model(model.engine.random_inputs()).items()})
PROGRAM
echo "check_install: installed into $("$environment/bin/python" --version), examples and program run"
rm -rf "$environment"
