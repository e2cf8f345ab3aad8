#!/usr/bin/env bash
# Everything a fresh Debian 12 (or Ubuntu 24.04) needs to build, test and demonstrate Tandem: system packages by apt and a
# project-local Python in .venv. Run it again as often as you like: a second run returns at once, a failed one resumes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

packages=(
  g++ cmake ninja-build ccache pkg-config python3 python3-dev python3-venv
  libfmt-dev nlohmann-json3-dev libcli11-dev libhwy-dev libdnnl-dev
  libprotobuf-dev protobuf-compiler libgtest-dev
)
python=${PYTHON:-/usr/bin/python3}

say() { printf '[setup] %s\n' "$*"; }
stop() { printf '[setup] %s\n' "$@" >&2; exit 1; }

stamp_text() { # changes whenever this script, the pinned versions or the system's Python change
  cat tools/setup.sh tools/requirements.txt
  echo "$python"; "$python" --version 2>&1 || true
}

missing_packages() {
  local status
  for package in "${packages[@]}"; do
    status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
    [[ $status == "install ok installed" ]] || printf '%s ' "$package"
  done
}

as_root() {
  if [[ $(id -u) == 0 ]]; then DEBIAN_FRONTEND=noninteractive "$@"
  elif command -v sudo >/dev/null; then sudo env DEBIAN_FRONTEND=noninteractive "$@"
  else return 126; fi
}

apt_install() { as_root apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=120 "$@"; }

system_packages() {
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    say "not a Debian or Ubuntu system: please see to these yourself: ${packages[*]}"
    return
  fi
  local missing; missing=$(missing_packages)
  if [[ -z $missing ]]; then say "system packages: all ${#packages[@]} are installed"; return; fi
  say "system packages to install: $missing"
  local advice="run as root: apt-get update && apt-get install -y --no-install-recommends $missing"
  [[ $(id -u) == 0 ]] || command -v sudo >/dev/null || stop "neither root nor sudo is at hand. Please $advice" "then run this again."
  # Lists that are absent or out of date make the first attempt fail; only then are they fetched.
  # shellcheck disable=SC2086
  if ! apt_install $missing; then
    say "refreshing the package lists and trying once more"
    as_root apt-get update -q || stop "apt-get update failed (network?). Run this again, or $advice"
    apt_install $missing || stop "apt-get could not install them. Run this again, or $advice"
  fi
  missing=$(missing_packages)
  [[ -z $missing ]] || stop "still missing: $missing"
}

python_packages() {
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || stop "$python is older than Python 3.11; set PYTHON to a newer one"
  if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
  fi
  say "Python packages (about 190 MB the first time)"
  local attempt
  for attempt in 1 2; do
    if .venv/bin/python -m pip install --disable-pip-version-check --no-deps --progress-bar off -r tools/requirements.txt |
       sed -u -n -e 's/^Collecting /[setup]   /p' -e 's/^Successfully installed.*/[setup] Python packages installed/p'; then
      return
    fi
    say "attempt $attempt failed"
  done
  stop "pip could not install tools/requirements.txt (network?). Run this again."
}

mkdir -p .cache
stamp=.cache/setup.stamp
if [[ -x .venv/bin/python && -f $stamp && $(stamp_text | sha256sum) == "$(cat $stamp)" ]]; then exit 0; fi
rm -f "$stamp"
system_packages
python_packages
stamp_text | sha256sum >"$stamp"
say "done"
