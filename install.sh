#!/usr/bin/env bash
# Installs ccrl into .venv with uv, and with it the PyTorch build for the GPU and its driver.
# The same for Windows: install.ps1. Which machine gets which build: docs/installing.md.
set -euo pipefail

usage() {
  printf '%s\n' \
    'Usage: ./install.sh [--quickstart] [--cpu] [--torch NAME] [--unsloth] [--dev] [--dry-run]' '' \
    '  --quickstart  only what the quickstart profile needs' \
    '  --cpu         the CPU build of PyTorch, even if there is a GPU' \
    '  --torch NAME  this build: a backend of uv (cu126, cu130, rocm7.2, xpu, auto, ...), or pypi' \
    '  --unsloth     Unsloth too, in the same resolution' \
    '  --dev         the development tools too' \
    '  --dry-run     print the commands; run none of them' '' \
    'Environment: PYTHON names the interpreter to use (3.11 to 3.14).'
}

say() { printf '%s\n' "$*" >&2; }
fail() {
  say "error: $1"
  say "hint: $2"
  exit 1
}
misused() {
  say "error: $1"
  usage >&2
  exit 2
}

# Exits 1 with the reason where a Python is of no use here; "pip" as its argument asks for pip too.
probe="import sys, os, sysconfig; v = sys.version_info[:2]; why = (\
'Python {}.{} is not between 3.11 and 3.14'.format(*v) if not (3, 11) <= v <= (3, 14) else \
'it is a 32-bit Python' if sys.maxsize < 2**32 else \
'it is a free-threaded Python' if sysconfig.get_config_var('Py_GIL_DISABLED') else \
'it belongs to conda, whose libraries break those of PyTorch' if 'conda' in sys.version or \
os.path.isdir(os.path.join(sys.base_prefix, 'conda-meta')) else \
'it has no pip' if 'pip' in sys.argv and not __import__('importlib.util').util.find_spec('pip') else \
''); print(why or sys.executable); sys.exit(why != '')"

# The end of an installation: what PyTorch is, and whether it sees the GPU that it was chosen for.
read -r -d '' check <<'PYTHON' || true
import sys
from importlib.metadata import distributions
def stop(error, hint):
    sys.exit('error: ' + error + '\nhint: ' + hint + ', then run the script again')
try:
    import torch
except Exception as problem:
    if any(code in str(problem) for code in ('WinError 126', 'WinError 1114')):
        stop('PyTorch cannot load its libraries: the Visual C++ runtime is missing (' + str(problem)
             + ')', 'winget install Microsoft.VCRedist.2015+.x64')
    stop('PyTorch cannot be imported: ' + str(problem), 'delete the folder .venv')
build, cuda, cards = sys.argv[1], torch.version.cuda, []
if torch.cuda.is_available():
    cards = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
version = 'PyTorch ' + torch.__version__
print(version, 'CUDA ' + cuda if cuda else 'no CUDA', *cards, sep=', ')
if build.startswith('cu') and not cuda:
    pins = [d.metadata['Name'] + ' asks for ' + line for d in distributions()
            for line in d.requires or () if line.replace(' ', '').startswith('torch==')]
    stop(version + ' in .venv is a CPU build, not ' + build + ': '
         + (', '.join(pins) or 'no package asks for it'), 'uninstall what brought it')
if build.startswith('cu') and not cards:
    try:
        torch.cuda.init()
        why = 'it names no reason'
    except Exception as problem:
        why = str(problem)
    stop(version + ' does not see the GPU: ' + why,
         'see that nvidia-smi answers and that CUDA_VISIBLE_DEVICES is not set')
PYTHON

torch_version="import importlib.metadata as m; print(m.version('torch'))"

# The words as a line for the shell: quoted where it would read them differently.
shown() {
  local word line=
  for word in "$@"; do
    case "$word" in
      *$'\n'*) line="$line '# what PyTorch is and which GPUs it sees'" ;;
      *[!A-Za-z0-9_./:=-]*) line="$line '$word'" ;;
      *) line="$line $word" ;;
    esac
  done
  printf '%s\n' "${line# }"
}

# Runs a command and passes its messages on; what it says when it fails decides the error.
run() {
  local line log
  line=$(shown "$@")
  if [ "$dry_run" -eq 1 ]; then
    printf '%s\n' "$line"
    return
  fi
  say "+ $line"
  if { log=$("$@" 2>&1 | while IFS= read -r word || [ -n "$word" ]; do
    printf '%s\n' "$word"
    printf '  %s\n' "$word" >&3
  done); } 3>&2; then return; fi
  case "$log" in
    *ensurepip* | *"No module named venv"*)
      fail "this Python cannot make environments: its package python3-venv is missing" \
        "sudo apt install python3-venv, then run the script again" ;;
    *"for '--torch-backend"* | *"argument '--torch-backend"* | *"argument '--managed-python"*)
      fail "this uv is too old, or does not know the build: $line" "uv self update, or name a build that it knows" ;;
    *"o space left"* | *"not enough space"*)
      fail "the disk is full" "make room (a CUDA build takes 8 GB), then run the script again" ;;
    *certificate*)
      fail "the certificate of the package index is not trusted here" \
        "behind a proxy that opens TLS: UV_SYSTEM_CERTS=1 ./install.sh" ;;
    *"HTTP status"*) ;;
    *"(Connect)"* | *"dns error"* | *"sending request"* | *NewConnection* | *"ew connection"* | *ffline* | \
      *"ould not connect"* | *"is unreachable"* | *"name resolution"* | *"timed out"* | *"Failed to fetch"*)
      fail "the package index cannot be reached: there is no network, or a proxy is needed" \
        "connect, or set HTTPS_PROXY; then run the script again: it goes on where it stopped" ;;
  esac
  fail "this command failed: $line" "read its messages above, then run the script again"
}

quickstart=0 cpu=0 torch=0 unsloth=0 dev=0 dry_run=0 build=cpu
while [ $# -gt 0 ]; do
  case "$1" in
    --quickstart) quickstart=1 ;;
    --cpu) cpu=1 ;;
    --torch)
      torch=1 build=${2:-}
      [[ $build =~ ^(auto|pypi|cpu|xpu|cu[0-9]+|rocm[0-9.]+)$ ]] ||
        misused "--torch takes a backend of uv (such as cu126), auto or pypi, not '$build'"
      shift ;;
    --unsloth) unsloth=1 ;;
    --dev) dev=1 ;;
    --dry-run) dry_run=1 ;;
    --help | -h) usage; exit 0 ;;
    *) misused "unknown option $1" ;;
  esac
  shift
done
if [ "$cpu$torch" = 11 ]; then misused "--cpu and --torch exclude each other"; fi
cd -- "$(dirname -- "${BASH_SOURCE[0]}")"
system=$(uname -s)
case "$system" in
  MINGW* | MSYS* | CYGWIN*)
    fail "this shell runs on Windows" "powershell -ExecutionPolicy Bypass -File install.ps1" ;;
esac

# --- uv and Python ---

PATH=$PATH:${HOME:-}/.local/bin # where uv's installer puts it; a new shell has it on PATH
get_uv='curl -LsSf https://astral.sh/uv/install.sh | sh'
if [ "$system" = Darwin ]; then get_uv='brew install uv'; fi
uv=() venv=() reasons=
if uv --version >/dev/null 2>&1; then uv=(uv); fi

# Whether a Python is of use here; the reason is left in $why.
fits() {
  if why=$("$1" -c "$probe" "${@:2}" 2>&1); then return 0; fi
  why=${why%%$'\n'*}
  why=${why:-it does not run}
  return 1
}

if [ -e .venv ] || [ -L .venv ]; then
  if [ -e .venv/Scripts/python.exe ] && ! [ -L .venv/bin/python ] && ! [ -e .venv/bin/python ]; then
    fail ".venv was made by Windows, and this is $system" \
      "rm -r .venv, then run the script again; two systems need a checkout each"
  elif ! fits .venv/bin/python pip; then
    [ -x .venv/bin/python ] || why="its Python is gone"
    fail ".venv cannot be used: $why" "rm -r .venv, then run the script again"
  fi
else
  set -- python3.12 python3.13 python3.11 python3.14 python3 python
  if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; fi
  for name in "$@"; do
    if candidate=$(command -v "$name") && fits "$candidate"; then
      venv=("$candidate" -m venv .venv)
      if [ ${#uv[@]} -gt 0 ]; then venv=(uv venv --seed --python "$candidate" .venv); fi
      break
    elif [ -n "$candidate" ]; then
      reasons="$reasons; $name: $why"
    fi
  done
  if [ ${#venv[@]} -eq 0 ]; then
    if [ -n "${PYTHON:-}" ]; then
      fail "PYTHON=$PYTHON cannot be used${reasons:-: it is not there}" "name a Python from 3.11 to 3.14"
    elif [ ${#uv[@]} -eq 0 ]; then
      fail "neither uv nor a Python that can be used was found$reasons" \
        "install uv, which brings Python: $get_uv; then run the script again"
    fi
    venv=(uv venv --seed --managed-python --python 3.12 .venv)
  fi
fi

# --- which build ---

# Whether version $1 is $2 or newer, by the first two numbers.
at_least() {
  local major=${1%%.*} minor=${1#*.}
  minor=${minor%%.*}
  [ "$major" -gt "${2%.*}" ] || { [ "$major" -eq "${2%.*}" ] && [ "$((10#$minor))" -ge "${2#*.}" ]; }
}

# The GPUs that are not NVIDIA's, or have no driver.
other_gpus() {
  local line device
  if command -v lspci >/dev/null; then
    { lspci 2>/dev/null || true; } | while IFS= read -r line; do
      case "$line" in *VGA* | *3D* | *Display*) printf '%s. ' "${line#*: }" ;; esac
    done
  else
    for device in /sys/bus/pci/devices/*; do
      case "$(cat "$device/class" "$device/vendor" 2>/dev/null)" in
        0x03*0x10de) printf 'NVIDIA GPU. ' ;;
        0x03*0x1002) printf 'AMD GPU. ' ;;
        0x03*0x8086) printf 'Intel GPU. ' ;;
      esac
    done
  fi
}

# Reads the answer of nvidia-smi into $driver, $cards, $capabilities and $newest.
read_cards() {
  local line row='^ *([0-9][0-9.]*), *(([0-9]+)\.([0-9]),|\[[^]]*\],)? *(.*[^ ]) *$'
  cards=() capabilities=() newest=0 driver=
  while IFS= read -r line; do
    if ! [[ ${line%$'\r'} =~ $row ]]; then continue; fi
    driver=${BASH_REMATCH[1]}
    # A card that does not say is taken for one that every build has kernels for.
    capabilities+=("${BASH_REMATCH[3]:-8}${BASH_REMATCH[4]:-0}")
    cards+=("${BASH_REMATCH[5]} (compute capability ${BASH_REMATCH[3]:-?}.${BASH_REMATCH[4]:-?})")
    if [ "${capabilities[${#cards[@]} - 1]}" -gt "$newest" ]; then
      newest=${capabilities[${#cards[@]} - 1]}
    fi
  done <<<"$1"
}

# The table of docs/installing.md: leaves $build and $why.
pick() {
  local least=525.60 # CUDA 12 on Linux; in WSL it is the driver of Windows that counts
  if [ -n "${WSL_DISTRO_NAME:-}" ] || [ -e /usr/lib/wsl/lib ]; then least=528.33; fi
  if ! at_least "$driver" $least; then
    build=cpu why="the CUDA builds need driver $least or newer"
  elif at_least "$driver" 580.0 && [ "$newest" -ge 75 ]; then
    build=cu130 why="the driver runs CUDA 13, which has kernels from 7.5 on"
  elif at_least "$driver" 580.0; then
    build=cu126 why="CUDA 13 has no kernels below 7.5"
  elif [ "$newest" -ge 100 ]; then
    build=cu128 why="before driver 580 only this one has kernels from 10.0 on"
  else
    build=cu126 why="drivers before 580 run CUDA 12"
  fi
}

detect() {
  local smi said='' index oldest=75 without=''
  if [ "$system" = Darwin ]; then
    build=pypi
    say "macOS: PyTorch from the package index, one build serves every Mac"
    return
  fi
  smi=$(command -v nvidia-smi) || smi=/usr/lib/wsl/lib/nvidia-smi
  if ! [ -x "$smi" ]; then
    said=$(other_gpus)
    case "$said" in
      *NVIDIA*)
        say "warning: the NVIDIA GPU has no driver, nvidia-smi is missing ($said): PyTorch build cpu"
        say "hint: install NVIDIA's driver, then run the script again" ;;
      *AMD* | *Radeon*)
        say "no NVIDIA GPU found, but ${said}It is untried with ccrl: PyTorch build cpu"
        say "hint: to try it: ./install.sh --torch rocm7.2" ;;
      *Intel*)
        say "no NVIDIA GPU found, but ${said}It is untried with ccrl: PyTorch build cpu"
        say "hint: to try it: ./install.sh --torch xpu" ;;
      *) say "no NVIDIA GPU found: PyTorch build cpu" ;;
    esac
    return
  fi
  # It can fail with a good answer (exit 14: a damaged infoROM), so the answer decides.
  said=$("$smi" --query-gpu=driver_version,compute_cap,name --format=csv,noheader 2>&1) || true
  case "$said" in
    *'"compute_cap"'*) # a driver before 510 does not know it
      said=$("$smi" --query-gpu=driver_version,name --format=csv,noheader 2>&1) || true ;;
  esac
  read_cards "$said"
  if [ ${#cards[@]} -eq 0 ]; then
    say "warning: the NVIDIA driver does not answer, nvidia-smi says: ${said:-nothing}: PyTorch build cpu"
    say "hint: mend the driver, then run the script again"
    return
  fi
  pick
  said=$(printf ' + %s' "${cards[@]}")
  [ "$build" != cpu ] || said=" + warning: ${said# + }"
  say "${said# + }, driver $driver: PyTorch build $build, because $why"
  if [ "$build" = cpu ]; then say "hint: update the driver, then run the script again"; return; fi
  if [ "$build" = cu126 ]; then oldest=50; fi
  for index in "${!cards[@]}"; do
    if [ "${capabilities[index]}" -lt $oldest ]; then without="$without, ${cards[index]}"; fi
  done
  if [ -n "$without" ]; then
    say "warning: $build has no kernels for ${without#, }"
    say "hint: leave it out of runs with CUDA_VISIBLE_DEVICES"
  fi
}

if [ "$cpu" -eq 1 ] || [ "$torch" -eq 1 ]; then
  if [ "$cpu$system" = 1Darwin ]; then build=pypi; fi
  say "as asked: PyTorch build $build"
else
  detect
fi

# --- the steps ---

making=0
trap 'if [ "$making" -eq 1 ]; then command -p rm -rf .venv; fi' EXIT # leave nothing half-made
if [ ${#venv[@]} -gt 0 ]; then
  making=$((1 - dry_run))
  run "${venv[@]}"
  making=0
fi
if [ ${#uv[@]} -eq 0 ]; then
  run .venv/bin/python -m pip install uv
  uv=(.venv/bin/python -m uv)
fi
words=("${uv[@]}" pip install --python .venv/bin/python)
extras=quickstart
case "$build" in
  pypi | auto) if command -v nvidia-smi >/dev/null; then extras=quickstart,cuda; fi ;;
  cu*) extras=quickstart,cuda ;;
esac
if [ "$quickstart" -eq 1 ]; then extras=quickstart; fi
if [ "$unsloth" -eq 1 ]; then extras=$extras,unsloth; fi
if [ "$dev" -eq 1 ]; then extras=$extras,dev; fi
if [ "$build" != pypi ]; then
  words+=(--torch-backend "$build")
  # uv leaves a build that is there alone, whatever its backend.
  there=$(.venv/bin/python -c "$torch_version" 2>/dev/null) || there=
  case "$there" in
    '' | *+"$build") ;;
    *) if [ "$build" != auto ]; then words+=(--reinstall-package torch --reinstall-package torchvision); fi ;;
  esac
fi
run "${words[@]}" -e ".[$extras]"
if [ "$dry_run" -eq 1 ]; then
  shown .venv/bin/python -c "$check" "$build"
elif ! .venv/bin/python -c "$check" "$build" >&2; then
  exit 1
fi
run .venv/bin/ccrl --version
if [ "$dry_run" -eq 0 ]; then say "Done. Next: .venv/bin/ccrl run"; fi
