#!/usr/bin/env bash
# run_tests.sh PRESET [ctest arguments…]: runs the tests of a preset that has been built and says how many passed, failed and were skipped.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
unset OPENBLAS_CORETYPE OPENBLAS_L2_SIZE
preset=$1; shift
report=$PWD/build/$preset/tests.xml
rm -f "$report"
ctest --preset "$preset" -j "${JOBS:-$(nproc)}" --output-junit "$report" "$@" | grep -v -E '^ *(Start +[0-9]+:|[0-9]+/[0-9]+ Test +#.* Passed )'
status=${PIPESTATUS[0]}
.venv/bin/python tools/count_tests.py "$preset" "$report" || exit 1
exit "$status"
