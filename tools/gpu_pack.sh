#!/usr/bin/env bash
# Fills build/gpu with what a machine with GPUs needs to run tools/gpu_check.py: the stripped programs of the preset `cuda`, the libraries
# that such a machine may lack, and a manifest with the commit. Models, scripts and peers are part of the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
from=build/cuda/bin to=build/gpu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
programs=(tandem kernels_test gpu_tests gpu_group_tests peer_test attention_ranks_test gpu_bench gpu_ranks_bench gpu_groups_bench)

rm -rf "$to"
mkdir -p "$to" "$work/bin" "$work/lib"
for program in "${programs[@]}"; do
  [[ -x $from/$program ]] || continue
  strip -o "$work/bin/$program" "$from/$program"
done
# Not the C library and what belongs to it: those are the machine's own.
ldd "$work"/bin/* | awk '/=> \//{print $3}' | sort -u | grep -Ev '/(libc|libm|libdl|librt|libpthread|libgcc_s|libstdc\+\+|ld-linux[^/]*)\.so' |
  while read -r library; do strip -o "$work/lib/$(basename "$library")" "$library" 2>/dev/null || cp -L "$library" "$work/lib/"; done
# The programs hold much alike, which a large dictionary finds.
XZ_OPT="--lzma2=preset=3,dict=256MiB" tar -C "$work" -cJf "$to/pack.tar.xz" bin lib
dirty=$(git status --porcelain --untracked-files=no | head -1)
printf '{"commit": "%s", "dirty": %s, "programs": "%s"}\n' "$(git rev-parse --short HEAD)" "$([[ -n $dirty ]] && echo true || echo false)" \
  "$(cat "$work"/bin/* | sha256sum | cut -c1-16)" >"$to/manifest.json"
du -sh "$to" | cut -f1
cat "$to/manifest.json"
