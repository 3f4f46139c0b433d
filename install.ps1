<#
.SYNOPSIS
Installs ccrl into .venv with uv, and with it the PyTorch build for the GPU and its driver.

.DESCRIPTION
The same for Linux and macOS: install.sh. Which machine gets which build: docs/installing.md.
If Windows refuses to run scripts: powershell -ExecutionPolicy Bypass -File install.ps1
PYTHON in the environment names the interpreter to use (3.11 to 3.14).

.PARAMETER Quickstart
Only what the quickstart profile needs.

.PARAMETER Cpu
The CPU build of PyTorch, even if there is a GPU.

.PARAMETER Torch
This build: a backend of uv (cu126, cu130, xpu, auto, ...), or pypi.

.PARAMETER Unsloth
Unsloth too, in the same resolution.

.PARAMETER Dev
The development tools too.

.PARAMETER DryRun
Print the commands; run none of them.

.EXAMPLE
.\install.ps1 -Quickstart -Cpu
#>
[CmdletBinding()]
param(
    [switch]$Quickstart,
    [switch]$Cpu,
    [string]$Torch,
    [switch]$Unsloth,
    [switch]$Dev,
    [switch]$DryRun
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'
$PSNativeCommandUseErrorActionPreference = $false # exit codes are looked at below

# Exits 1 with the reason where a Python is of no use here; "pip" as its argument asks for pip too.
# One line without double quotes: a python.bat of pyenv-win hands it on.
$Probe = @(
    'import sys, os, sysconfig; v = sys.version_info[:2]; why = ('
    "'Python {}.{} is not between 3.11 and 3.14'.format(*v) if not (3, 11) <= v <= (3, 14) else"
    "'it is a 32-bit Python' if sys.maxsize < 2**32 else"
    "'it is a free-threaded Python' if sysconfig.get_config_var('Py_GIL_DISABLED') else"
    "'it belongs to conda, whose libraries break those of PyTorch' if 'conda' in sys.version or"
    "os.path.isdir(os.path.join(sys.base_prefix, 'conda-meta')) else 'it has no pip' if"
    "'pip' in sys.argv and not __import__('importlib.util').util.find_spec('pip') else"
    "''); print(why or sys.executable); sys.exit(why != '')"
) -join ' '

# The end of an installation: what PyTorch is, and whether it sees the GPU that it was chosen for.
$Check = @'
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
'@
$TorchVersion = "import importlib.metadata as m; print(m.version('torch'))"

function Write-Message([string]$Text) { [Console]::Error.WriteLine($Text) }

function Stop-WithHint([string]$Message, [string]$Hint, [int]$Code = 1) {
    Write-Message "error: $Message"
    Write-Message "hint: $Hint"
    exit $Code
}

# Runs a program: its lines (stderr too, as they come to -Each), and its exit code in $script:Code.
function Invoke-Program([string]$Program, [string[]]$Arguments, [scriptblock]$Each = { $_ }) {
    # With 'Stop', Windows PowerShell takes a line on stderr for an error of the script.
    $ErrorActionPreference = 'Continue'
    $script:Code = 127
    try {
        & $Program @Arguments 2>&1 | ForEach-Object { "$_" } | ForEach-Object $Each
        $script:Code = $LASTEXITCODE
    }
    catch { "$_" } # not there, or not a program
}

function Test-Program([string]$Name) {
    $null -ne (Get-Command $Name -CommandType Application -ErrorAction SilentlyContinue)
}

# The words as a line for the shell: quoted where it would read them differently.
function Format-Line([string[]]$Words) {
    $(foreach ($word in $Words) {
            if ($word.Contains("`n")) { "'# what PyTorch is and which GPUs it sees'" }
            elseif ($word -match '[^\w./\\:=-]') { "'$word'" }
            else { $word }
        }) -join ' '
}

# Runs a command and passes its messages on; what it says when it fails decides the error.
function Invoke-Step([string]$Program, [string[]]$Arguments) {
    $line = Format-Line (@($Program) + $Arguments)
    if ($DryRun) { return $line }
    Write-Message "+ $line"
    $log = @(Invoke-Program $Program $Arguments { Write-Message "  $_"; $_ }) -join "`n"
    if ($Code -eq 0) { return }
    $again = 'then run the script again'
    switch -Regex ($log) {
        'ensurepip|No module named venv' {
            Stop-WithHint 'this Python cannot make environments: it has no venv (on Debian the package python3-venv)' `
                "winget install --id=astral-sh.uv -e (on Debian: sudo apt install python3-venv), $again"
        }
        "(for|argument) '--(torch-backend|managed-python)" {
            Stop-WithHint "this uv is too old, or does not know the build: $line" 'uv self update, or name a build that it knows'
        }
        'o space left|not enough space' {
            Stop-WithHint 'the disk is full' "make room (a CUDA build takes 8 GB), $again"
        }
        'os error 206|WinError 206|[Ll]ong [Pp]ath|(path|name|extension) is too long' {
            Stop-WithHint 'a path is longer than Windows allows here (260 characters)' `
                "move the folder to a short path such as C:\ccrl, or allow long paths in Windows; $again"
        }
        'certificate' {
            Stop-WithHint 'the certificate of the package index is not trusted here' `
                "behind a proxy that opens TLS: `$env:UV_SYSTEM_CERTS = '1', $again"
        }
        'HTTP status' { break }
        '\(Connect\)|dns error|sending request|ew ?[Cc]onnection|ffline|ould not connect|is unreachable|name resolution|timed out|Failed to fetch' {
            Stop-WithHint 'the package index cannot be reached: there is no network, or a proxy is needed' `
                "connect, or set HTTPS_PROXY; $again`: it goes on where it stopped"
        }
    }
    Stop-WithHint "this command failed: $line" "read its messages above, $again"
}

# A program of the environment.
function Get-VenvProgram([string]$Name) {
    $path = Join-Path '.venv' (Join-Path 'Scripts' $Name)
    if ((Test-Path -LiteralPath $path) -and -not (Test-Path -LiteralPath "$path.exe")) { return $path }
    return "$path.exe"
}

# --- uv and Python ---

# Whether a Python is of use here; then $script:Found is its path, else $script:Why the reason.
function Test-Python([string]$Program, [string[]]$Arguments) {
    $lines = @(Invoke-Program $Program $Arguments | Where-Object { $_ })
    $script:Found = $Program
    if ($Code -eq 0 -and $lines.Count -gt 0 -and (Test-Path -LiteralPath $lines[-1])) { $script:Found = $lines[-1] }
    $script:Why = if ($lines.Count -gt 0) { $lines[0] } else { 'it does not run' }
    return $Code -eq 0
}

# The command that makes .venv, by the first Python that is of use or by one that uv fetches;
# nothing if .venv is there and in order.
function Get-VenvCommand([bool]$HasUv) {
    if (Test-Path -LiteralPath '.venv') {
        $python = Get-VenvProgram 'python'
        if (-not (Test-Path -LiteralPath $python)) {
            if (Test-Path -LiteralPath (Join-Path '.venv' (Join-Path 'bin' 'python'))) {
                Stop-WithHint '.venv was made by Linux (WSL) or macOS, and this is Windows' `
                    'Remove-Item -Recurse -Force .venv, then run the script again; two systems need a checkout each'
            }
            $script:Why = 'its Python is gone'
        }
        elseif (Test-Python $python @('-c', $Probe, 'pip')) { return }
        elseif ($Code -ne 1) { $script:Why = "its Python is gone: $Why" } # it is the launcher that speaks
        Stop-WithHint ".venv cannot be used: $Why" 'Remove-Item -Recurse -Force .venv, then run the script again'
    }
    $reasons = ''
    $candidates = @()
    if ($env:PYTHON) { $candidates = @(, @($env:PYTHON)) }
    else {
        if (Test-Program 'py') {
            $listed = @(Invoke-Program 'py' @('-0')) -join ' '
            $candidates = @('3.12', '3.13', '3.11', '3.14' | Where-Object { $listed.Contains($_) } |
                    ForEach-Object { , @('py', "-$_") })
        }
        $candidates += @('python', 'python3' | Where-Object { Test-Program $_ } | ForEach-Object { , @($_) })
    }
    foreach ($words in $candidates) {
        if (Test-Python $words[0] (@($words | Select-Object -Skip 1) + @('-c', $Probe))) {
            if ($HasUv) { return @('uv', 'venv', '--seed', '--python', $Found, '.venv') }
            return $words + @('-m', 'venv', '.venv')
        }
        $reasons += "; $($words -join ' '): $Why"
    }
    if ($env:PYTHON) {
        Stop-WithHint "PYTHON=$env:PYTHON cannot be used: $Why" 'name a Python from 3.11 to 3.14'
    }
    if (-not $HasUv) {
        Stop-WithHint "neither uv nor a Python that can be used was found$reasons" `
            'install uv, which brings Python: winget install --id=astral-sh.uv -e; then run the script again'
    }
    return @('uv', 'venv', '--seed', '--managed-python', '--python', '3.12', '.venv')
}

# --- which build ---

# The GPUs that are not NVIDIA's, or have no driver.
function Get-OtherGpu {
    if (Get-Command Get-CimInstance -ErrorAction SilentlyContinue) {
        Get-CimInstance Win32_VideoController -ErrorAction SilentlyContinue | ForEach-Object { $_.Name }
    }
    elseif (Test-Program 'lspci') {
        Invoke-Program 'lspci' @() | Where-Object { $_ -match 'VGA|3D|Display' } |
            ForEach-Object { $_ -replace '^.*?: ' }
    }
}

# The answer of nvidia-smi as cards with a driver, a name and a compute capability (89 for 8.9).
function Get-Card([string[]]$Lines) {
    foreach ($line in $Lines) {
        if ($line -notmatch '^\s*(?<driver>\d[\d.]*),\s*((?<cap>\d+\.\d),|\[[^\]]*\],)?\s*(?<name>.*\S)') { continue }
        # A card that does not say is taken for one that every build has kernels for.
        $capability = if ($Matches.ContainsKey('cap')) { $Matches.cap } else { '?.?' }
        [pscustomobject]@{
            Driver = $Matches.driver
            Number = [int]($capability.Replace('.', '').Replace('??', '80'))
            Name = "$($Matches.name) (compute capability $capability)"
        }
    }
}

# The table of docs/installing.md: a build and the reason.
function Get-Build([string]$Driver, [int]$Newest) {
    $least = '528.33' # CUDA 12 on Windows
    $number = [version](($Driver -replace '^(\d+)$', '$1.0') -replace '^(\d+\.\d+).*$', '$1')
    if ($number -lt [version]$least) { return 'cpu', "the CUDA builds need driver $least or newer" }
    if ($number.Major -ge 580 -and $Newest -ge 75) {
        return 'cu130', 'the driver runs CUDA 13, which has kernels from 7.5 on'
    }
    if ($number.Major -ge 580) { return 'cu126', 'CUDA 13 has no kernels below 7.5' }
    if ($Newest -ge 100) { return 'cu128', 'before driver 580 only this one has kernels from 10.0 on' }
    return 'cu126', 'drivers before 580 run CUDA 12'
}

function Find-Build {
    if (-not (Test-Program 'nvidia-smi')) {
        $others = @(Get-OtherGpu) -join '. '
        $untried = "no NVIDIA GPU found, but $others. It is untried with ccrl: PyTorch build cpu"
        switch -CaseSensitive -Regex ($others) {
            'NVIDIA' {
                Write-Message "warning: the NVIDIA GPU has no driver, nvidia-smi is missing ($others): PyTorch build cpu"
                Write-Message "hint: install NVIDIA's driver, then run the script again"
                return 'cpu'
            }
            'AMD|Radeon' {
                Write-Message $untried
                Write-Message 'hint: to try it: ./install.sh --torch rocm7.2 in WSL 2'
                return 'cpu'
            }
            'Intel' {
                Write-Message $untried
                Write-Message 'hint: to try it: install.ps1 -Torch xpu'
                return 'cpu'
            }
        }
        Write-Message 'no NVIDIA GPU found: PyTorch build cpu'
        return 'cpu'
    }
    # It can fail with a good answer (exit 14: a damaged infoROM), so the answer decides.
    $said = @(Invoke-Program 'nvidia-smi' @('--query-gpu=driver_version,compute_cap,name', '--format=csv,noheader'))
    if (($said -join ' ').Contains('"compute_cap"')) { # a driver before 510 does not know it
        $said = @(Invoke-Program 'nvidia-smi' @('--query-gpu=driver_version,name', '--format=csv,noheader'))
    }
    $cards = @(Get-Card $said)
    if ($cards.Count -eq 0) {
        $quoted = if ($said) { $said -join ' ' } else { 'nothing' }
        Write-Message "warning: the NVIDIA driver does not answer, nvidia-smi says: ${quoted}: PyTorch build cpu"
        Write-Message 'hint: mend the driver, then run the script again'
        return 'cpu'
    }
    $build, $why = Get-Build $cards[0].Driver ($cards.Number | Measure-Object -Maximum).Maximum
    $line = "$($cards.Name -join ' + '), driver $($cards[0].Driver): PyTorch build $build, because $why"
    if ($build -eq 'cpu') {
        Write-Message "warning: $line"
        Write-Message 'hint: update the driver, then run the script again'
        return 'cpu'
    }
    Write-Message $line
    $oldest = if ($build -eq 'cu126') { 50 } else { 75 }
    $without = @($cards | Where-Object { $_.Number -lt $oldest } | ForEach-Object { $_.Name })
    if ($without) {
        Write-Message "warning: $build has no kernels for $($without -join ', ')"
        Write-Message 'hint: leave it out of runs with CUDA_VISIBLE_DEVICES'
    }
    return $build
}

# --- the steps ---

if ($Torch -or $PSBoundParameters.ContainsKey('Torch')) {
    if ($Torch -notmatch '^(auto|pypi|cpu|xpu|cu\d+|rocm[\d.]+)$') {
        Stop-WithHint "-Torch takes a backend of uv (such as cu126), auto or pypi, not '$Torch'" 'Get-Help .\install.ps1 -Full' 2
    }
    if ($Cpu) { Stop-WithHint '-Cpu and -Torch exclude each other' 'leave one of them out' 2 }
}
# Where uv's installer puts it, and what winget has just added: a new window has both on PATH.
$path = $env:PATH
$places = @($path, "$HOME\.local\bin", [Environment]::GetEnvironmentVariable('Path', 'User'))
$env:PATH = ($places | Where-Object { $_ }) -join [IO.Path]::PathSeparator
$making = $false
Push-Location -LiteralPath $PSScriptRoot
try {
    $null = Invoke-Program 'uv' @('--version')
    $hasUv = $Code -eq 0
    $venv = @(Get-VenvCommand $hasUv)
    if ($Cpu -or $Torch) {
        $build = if ($Cpu) { 'cpu' } else { $Torch }
        Write-Message "as asked: PyTorch build $build"
    }
    else { $build = Find-Build }

    if ($venv) {
        $making = -not $DryRun
        Invoke-Step $venv[0] ($venv | Select-Object -Skip 1)
        $making = $false
    }
    $python = Get-VenvProgram 'python'
    $uv = @('uv')
    if (-not $hasUv) {
        Invoke-Step $python @('-m', 'pip', 'install', 'uv')
        $uv = @($python, '-m', 'uv')
    }
    $words = @($uv | Select-Object -Skip 1) + @('pip', 'install', '--python', $python)
    $extras = @('quickstart')
    $cuda = $build -like 'cu*' -or ($build -in 'pypi', 'auto' -and (Test-Program 'nvidia-smi'))
    if ($cuda -and -not $Quickstart) { $extras += 'cuda' }
    if ($Unsloth) { $extras += 'unsloth' }
    if ($Dev) { $extras += 'dev' }
    if ($build -ne 'pypi') {
        $words += @('--torch-backend', $build)
        # uv leaves a build that is there alone, whatever its backend.
        $there = @(Invoke-Program $python @('-c', $TorchVersion))
        if ($Code -eq 0 -and $build -ne 'auto' -and -not "$there".EndsWith("+$build")) {
            $words += @('--reinstall-package', 'torch', '--reinstall-package', 'torchvision')
        }
    }
    Invoke-Step $uv[0] ($words + @('-e', ".[$($extras -join ',')]"))
    if ($DryRun) { Format-Line @($python, '-c', $Check, $build) }
    else {
        Invoke-Program $python @('-c', $Check, $build) { Write-Message $_ }
        if ($Code -ne 0) { exit 1 }
    }
    Invoke-Step (Get-VenvProgram 'ccrl') @('--version')
}
finally {
    if ($making) { Remove-Item -LiteralPath '.venv' -Recurse -Force -ErrorAction SilentlyContinue } # nothing half-made
    Pop-Location
    $env:PATH = $path
}
if (-not $DryRun) { Write-Message 'Done. Next: .venv\Scripts\ccrl run' }
exit 0
