#!/usr/bin/env bash
# Installs ccrl into .venv: finds Python, picks the PyTorch build that fits the GPU driver.
# The same for Windows: install.ps1
set -euo pipefail

usage() {
  cat <<'TEXT'
Usage: ./install.sh [--quickstart] [--cpu] [--dev] [--dry-run]

  --quickstart  only what the quickstart profile needs
  --cpu         the CPU build of PyTorch, even if there is a GPU
  --dev         the development tools too
  --dry-run     print the commands; run none of them

Environment: PYTHON names the interpreter to use (3.11 to 3.14).
TEXT
}

say() { printf '%s\n' "$*" >&2; }
fail() {
  say "error: $1"
  say "hint: $2"
  exit 1
}

quickstart=0 cpu=0 dev=0 dry_run=0
for argument in "$@"; do
  case "$argument" in
    --quickstart) quickstart=1 ;;
    --cpu) cpu=1 ;;
    --dev) dev=1 ;;
    --dry-run) dry_run=1 ;;
    --help | -h) usage; exit 0 ;;
    *) say "error: unknown option $argument"; usage >&2; exit 2 ;;
  esac
done

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
torch="torch>=2.11,<2.14"
wheels="https://download.pytorch.org/whl"

fits() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; }

find_python() {
  local candidate
  for candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3.14 python3 python; do
    if command -v "$candidate" >/dev/null 2>&1 && fits "$candidate"; then
      printf '%s\n' "$candidate"
      return
    fi
    if [ "$candidate" = "${PYTHON:-}" ]; then
      fail "PYTHON=$PYTHON is not a Python between 3.11 and 3.14" "name another interpreter"
    fi
  done
  fail "no Python between 3.11 and 3.14 was found" \
    "install one from https://www.python.org/downloads/, or name it: PYTHON=/path/to/python ./install.sh"
}

# The highest CUDA version that the driver supports, such as 12.8; nothing without a working GPU.
# Drivers from 610 on call it "CUDA UMD Version".
cuda_version() {
  command -v nvidia-smi >/dev/null 2>&1 || return 0
  local banner
  banner=$(nvidia-smi 2>/dev/null) || return 0
  printf '%s\n' "$banner" |
    sed -nE 's/.*CUDA( UMD)? Version: *([0-9]+\.[0-9]+).*/\2/p' | sed -n 1p
}

# The PyTorch build for a CUDA version.
build_for() {
  local major=${1%%.*} minor=${1#*.}
  if [ "$major" -ge 13 ]; then
    echo cu130
  elif [ "$major" -eq 12 ] && [ "$minor" -ge 8 ]; then
    echo cu128
  elif [ "$major" -eq 12 ] && [ "$minor" -ge 6 ]; then
    echo cu126
  else
    echo cpu
  fi
}

# The words as a line for the shell: quoted where it would read them differently.
shown() {
  local word line=
  for word in "$@"; do
    case "$word" in
      *[!A-Za-z0-9_./:=-]*) line="$line '$word'" ;;
      *) line="$line $word" ;;
    esac
  done
  printf '%s\n' "${line# }"
}

run() {
  if [ "$dry_run" -eq 1 ]; then
    shown "$@"
    return
  fi
  say "+ $(shown "$@")"
  "$@" || fail "this command failed: $(shown "$@")" \
    "read its messages above, then run the script again"
}

python=$(find_python)
build=cpu
if [ "$cpu" -eq 0 ]; then
  cuda=$(cuda_version)
  if [ -n "$cuda" ]; then
    build=$(build_for "$cuda")
    if [ "$build" = cpu ]; then
      say "warning: the NVIDIA driver supports CUDA $cuda, PyTorch needs 12.6: installing the CPU build"
      say "hint: update the driver and run this script again"
    else
      say "NVIDIA driver with CUDA $cuda: PyTorch build $build"
    fi
  else
    say "no NVIDIA GPU found: PyTorch build cpu"
  fi
fi

extras=quickstart
if [ "$quickstart" -eq 0 ]; then
  extras=$extras,report
  if [ "$build" != cpu ]; then extras=$extras,cuda; fi
fi
if [ "$dev" -eq 1 ]; then extras=$extras,dev; fi

cd "$root"
index=(--index-url "$wheels/$build")
if [ "$(uname -s)" = Darwin ]; then index=(); fi # one build serves every Mac; it is on PyPI
if [ ! -x .venv/bin/python ]; then run "$python" -m venv .venv; fi
run .venv/bin/python -m pip install --upgrade pip
run .venv/bin/python -m pip install --upgrade "$torch" ${index[@]+"${index[@]}"}
run .venv/bin/python -m pip install -e ".[$extras]"
run .venv/bin/ccrl --version
if [ "$dry_run" -eq 0 ]; then say "Done. Next: source .venv/bin/activate && ccrl run"; fi
