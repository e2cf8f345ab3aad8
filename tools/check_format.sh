#!/usr/bin/env bash
# check_format.sh [--fix]: whether the sources look as .clang-format and ruff.toml say; --fix makes it so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cpp=(--dry-run --Werror) format=(--check) lint=()
[[ ${1:-} == --fix ]] && cpp=(-i) format=() lint=(--fix)
find bench examples include python src tests \( -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \) -print0 |
  xargs -0 -P "$(nproc)" -n 40 .venv/bin/clang-format "${cpp[@]}"
.venv/bin/ruff format --quiet "${format[@]}" .
.venv/bin/ruff check --quiet "${lint[@]}" .
