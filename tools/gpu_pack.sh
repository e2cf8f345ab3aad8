#!/usr/bin/env bash
# Fills build/gpu with all that a machine with GPUs needs to run build/gpu/gpu_check.sh there: the stripped programs of the preset `pack`, the
# libraries that such a machine may lack, the Python package where the preset has one, recorded models, peers, scripts, and a manifest with the
# commit. In the repository tools/gpu_check.py runs the same. Exit status 1 where it is over 40 MiB. The package for another Python than the one
# here: see TANDEM_PACKAGE_PYTHONS in python/CMakeLists.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
from=build/pack/bin to=build/gpu contents=(bin lib)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
programs=(tandem kernels_test gpu_tests gpu_group_tests peer_test attention_ranks_test gpu_bench gpu_ranks_bench gpu_groups_bench gpu_engine gpu_cublaslt gpu_cudnn gpu_cudnn_plans)

most_mib=40

rm -rf "$to"
mkdir -p "$to" "$work/bin" "$work/lib"
for program in "${programs[@]}"; do
  [[ -x $from/$program ]] || continue
  strip -o "$work/bin/$program" "$from/$program"
done
# The Python package, with an extension for each Python that there is one for.
if compgen -G "build/pack/python/tandem/_core*.so" >/dev/null; then
  mkdir -p "$work/python"
  cp -rL python/tandem "$work/python/"
  find "$work/python" -name __pycache__ -prune -exec rm -rf {} +
  for extension in build/pack/python/tandem/_core*.so; do strip -o "$work/python/tandem/$(basename "$extension")" "$extension"; done
  mkdir -p "$work/python/tandem/bin"
  ln -s ../../../bin/tandem "$work/python/tandem/bin/tandem"
  contents+=(python)
fi
# Not the C library and what belongs to it: those are the machine's own.
find "$work" -type f \( -path "$work/bin/*" -o -name "*.so" \) -print0 | xargs -0 ldd | awk '/=> \//{print $3}' | sort -u | grep -Ev '/(libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+|ld-linux[^/]*)\.so' |
  while read -r library; do strip -o "$work/lib/$(basename "$library")" "$library" 2>/dev/null || cp -L "$library" "$work/lib/"; done
# The programs hold much alike, which a large dictionary finds.
XZ_OPT="--lzma2=preset=6,dict=256MiB" tar -C "$work" -cJf "$to/pack.tar.xz" "${contents[@]}"
# Programs that were built from another commit, or from files that were not committed, are no better than a tree with changes.
dirty=$(git status --porcelain --untracked-files=no | head -1)
here=$(git describe --always --abbrev=12 --dirty=+ --exclude='*')
if ! grep -qF "\"$here\"" build/pack/source_commit.cpp; then
  echo "the programs were built from another state than $here: see build/pack/source_commit.cpp" >&2
  dirty=yes
fi
printf '{"commit": "%s", "dirty": %s, "programs": "%s"}\n' "$(git rev-parse --short HEAD)" "$([[ -n $dirty ]] && echo true || echo false)" \
  "$(find "$work" -type f -not -path "$work/lib/*" -print0 | sort -z | xargs -0 cat | sha256sum | cut -c1-16)" >"$to/manifest.json"
# What the repository has, as it stands there.
git ls-files -z tools/gpu_check.py tools/gpu_checks tests/models tests/refused.txt bench/gpu_models.py bench/peers/gpu_*.py python/tests examples/tensorrt |
  xargs -0 cp --parents -t "$to"
printf '#!/usr/bin/env bash\n# gpu_check.sh [STAGE...] [--budget SECONDS] [--out DIR] [--resume [FILE]] [--jobs N]\nexec python3 "$(dirname "${BASH_SOURCE[0]}")/tools/gpu_check.py" "$@"\n' >"$to/gpu_check.sh"
chmod +x "$to/gpu_check.sh"
size=$(du -s --block-size=1M "$to" | cut -f1)
echo "$size MiB"
cat "$to/manifest.json"
if ((size > most_mib)); then
  echo "that is over $most_mib MiB" >&2
  exit 1
fi
