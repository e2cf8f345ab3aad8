#!/usr/bin/env bash
# check_install.sh [PYTHON [tests]]: one command installs the package into a new environment, where examples and program run; with "tests" the
# package's tests run there too, with what they need from tools/requirements.txt (its versions for the Pythons that it is for).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD python=${1:-/usr/bin/python3}
environment=$PWD/build/clean_environment_$("$python" -c 'import sys; print("%d%d" % sys.version_info[:2])')
rm -rf "$environment"
"$python" -m venv "$environment"
unset PYTHONPATH
# The compiler as the presets call it, so that ccache knows what they have built.
CC=cc CXX=$(command -v c++) "$environment/bin/pip" install --disable-pip-version-check --quiet "$root"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ln -s "$root/tests" "$work/tests"
cd "$work"
for example in first_run sharded_mlp context_parallel_attention collectives transformer_block; do
  "$environment/bin/python" "$root/examples/python/$example.py"
done
for example in python/ranks tensorrt/collective tensorrt/attention; do
  export WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=29537
  RANK=1 LOCAL_RANK=1 "$environment/bin/python" "$root/examples/$example.py" &
  RANK=0 LOCAL_RANK=0 "$environment/bin/python" "$root/examples/$example.py"
  wait "$!"
  unset WORLD_SIZE MASTER_ADDR MASTER_PORT
done
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
if [[ ${2:-} == tests ]]; then
  pins=$(sed 's/#.*//' "$root/tools/requirements.txt")
  case $environment in
    *_311 | *_312) ;;
    *) pins=$(sed 's/==[^ ]*//' <<<"$pins")$'\nexceptiongroup\ntomli' ;;
  esac
  "$environment/bin/pip" install --disable-pip-version-check --quiet --no-deps -r /dev/stdin <<<"$pins"
  cd "$root"
  PYTHONPATH=$work "$environment/bin/python" -m pytest -q -rs -p no:cacheprovider python/tests
fi
echo "check_install: installed into $("$environment/bin/python" --version), examples and program${2:+ and $2} run"
rm -rf "$environment"
