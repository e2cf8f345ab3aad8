#!/usr/bin/env bash
# Fills build/gpu with what a machine with GPUs needs to run tools/gpu_check.py: the stripped programs of the preset `cuda`, the libraries
# that such a machine may lack, the Python package where the preset has one, and a manifest with the commit. Models, scripts and peers are part
# of the repository. The package for another Python than the one here: see TANDEM_PACKAGE_PYTHONS in python/CMakeLists.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
from=build/cuda/bin to=build/gpu contents=(bin lib)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
programs=(tandem kernels_test gpu_tests gpu_group_tests peer_test attention_ranks_test gpu_bench gpu_ranks_bench gpu_groups_bench gpu_engine gpu_cublaslt gpu_cudnn_plans)

rm -rf "$to"
mkdir -p "$to" "$work/bin" "$work/lib"
for program in "${programs[@]}"; do
  [[ -x $from/$program ]] || continue
  strip -o "$work/bin/$program" "$from/$program"
done
# The Python package, with an extension for each Python that there is one for.
if compgen -G "build/cuda/python/tandem/_core*.so" >/dev/null; then
  mkdir -p "$work/python"
  cp -rL python/tandem "$work/python/"
  find "$work/python" -name __pycache__ -prune -exec rm -rf {} +
  for extension in build/cuda/python/tandem/_core*.so; do strip -o "$work/python/tandem/$(basename "$extension")" "$extension"; done
  mkdir -p "$work/python/tandem/bin"
  ln -s ../../../bin/tandem "$work/python/tandem/bin/tandem"
  contents+=(python)
fi
# Not the C library and what belongs to it: those are the machine's own.
find "$work" -type f \( -path "$work/bin/*" -o -name "*.so" \) -print0 | xargs -0 ldd | awk '/=> \//{print $3}' | sort -u | grep -Ev '/(libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+|ld-linux[^/]*)\.so' |
  while read -r library; do strip -o "$work/lib/$(basename "$library")" "$library" 2>/dev/null || cp -L "$library" "$work/lib/"; done
# The programs hold much alike, which a large dictionary finds.
XZ_OPT="--lzma2=preset=3,dict=256MiB" tar -C "$work" -cJf "$to/pack.tar.xz" "${contents[@]}"
dirty=$(git status --porcelain --untracked-files=no | head -1)
printf '{"commit": "%s", "dirty": %s, "programs": "%s"}\n' "$(git rev-parse --short HEAD)" "$([[ -n $dirty ]] && echo true || echo false)" \
  "$(find "$work" -type f -not -path "$work/lib/*" -print0 | sort -z | xargs -0 cat | sha256sum | cut -c1-16)" >"$to/manifest.json"
du -sh "$to" | cut -f1
cat "$to/manifest.json"
