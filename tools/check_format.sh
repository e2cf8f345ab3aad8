#!/usr/bin/env bash
# check_format.sh [--fix]: whether what git tracks looks as .clang-format and ruff.toml say; --fix makes it so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
fix=${1:-}
cpp=(--dry-run --Werror) python=(--check)
[[ $fix == --fix ]] && cpp=(-i) python=()
git ls-files '*.cpp' '*.h' '*.cu' '*.cuh' | xargs -P "$(nproc)" -n 40 .venv/bin/clang-format "${cpp[@]}"
.venv/bin/ruff format --quiet "${python[@]}" .
.venv/bin/ruff check --quiet ${fix:+--fix} .
