<#
.SYNOPSIS
Installs ccrl into .venv: finds Python, picks the PyTorch build that fits the GPU driver.

.DESCRIPTION
The same for Linux and macOS: install.sh. If Windows refuses to run scripts:
powershell -ExecutionPolicy Bypass -File install.ps1

.PARAMETER Quickstart
Only what the quickstart profile needs.

.PARAMETER Cpu
The CPU build of PyTorch, even if there is a GPU.

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
    [switch]$Dev,
    [switch]$DryRun
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'

$Torch = 'torch>=2.11,<2.14'
$Wheels = 'https://download.pytorch.org/whl'

function Stop-WithHint([string]$Message, [string]$Hint) {
    [Console]::Error.WriteLine("error: $Message")
    [Console]::Error.WriteLine("hint: $Hint")
    exit 1
}

# The lines a program prints, or nothing if it is missing or fails.
function Get-ProgramOutput([string]$Program, [string[]]$Arguments) {
    if ($null -eq (Get-Command $Program -CommandType Application -ErrorAction SilentlyContinue)) {
        return @()
    }
    # With 'Stop', Windows PowerShell takes a line on stderr for an error of the script.
    $ErrorActionPreference = 'Continue'
    $lines = @(& $Program @Arguments 2>$null)
    if ($LASTEXITCODE -ne 0) { return @() }
    return $lines
}

# A Python between 3.11 and 3.14: $env:PYTHON, the launcher's, or the one on PATH.
function Find-Python {
    $probe = 'import sys; print(sys.executable if (3, 11) <= sys.version_info[:2] <= (3, 14) else str())'
    if ($env:PYTHON) {
        $found = @(Get-ProgramOutput $env:PYTHON @('-c', $probe))
        if ($found.Count -gt 0 -and $found[0]) { return $found[0] }
        Stop-WithHint "PYTHON=$env:PYTHON is not a Python between 3.11 and 3.14" 'name another interpreter'
    }
    $listed = @(Get-ProgramOutput 'py' @('-0')) -join ' '
    foreach ($version in '3.13', '3.12', '3.11', '3.14') {
        if (-not $listed.Contains($version)) { continue }
        $found = @(Get-ProgramOutput 'py' @("-$version", '-c', $probe))
        if ($found.Count -gt 0 -and $found[0]) { return $found[0] }
    }
    foreach ($name in 'python', 'python3') {
        $found = @(Get-ProgramOutput $name @('-c', $probe))
        if ($found.Count -gt 0 -and $found[0]) { return $found[0] }
    }
    Stop-WithHint 'no Python between 3.11 and 3.14 was found' `
        'install one: winget install Python.Python.3.12, or https://www.python.org/downloads/'
}

# The highest CUDA version that the driver supports; nothing without a working GPU.
# Drivers from 610 on call it "CUDA UMD Version".
function Get-CudaVersion {
    foreach ($line in @(Get-ProgramOutput 'nvidia-smi' @())) {
        if ($line -match 'CUDA(?: UMD)? Version:\s*(\d+)\.(\d+)') {
            return [version]"$($Matches[1]).$($Matches[2])"
        }
    }
    return $null
}

# The PyTorch build for a CUDA version.
function Get-TorchBuild([version]$Cuda) {
    if ($Cuda -ge [version]'13.0') { return 'cu130' }
    if ($Cuda -ge [version]'12.8') { return 'cu128' }
    if ($Cuda -ge [version]'12.6') { return 'cu126' }
    return 'cpu'
}

function Invoke-Step([string]$Program, [string[]]$Arguments) {
    $line = (@($Program) + $Arguments | ForEach-Object {
            if ($_ -match '[\s<>\[\]]') { "`"$_`"" } else { $_ }
        }) -join ' '
    if ($DryRun) {
        Write-Output $line
        return
    }
    Write-Host "+ $line"
    & $Program @Arguments
    if ($LASTEXITCODE -ne 0) {
        Stop-WithHint "this command failed with exit code ${LASTEXITCODE}: $line" `
            'read its messages above, then run the script again'
    }
}

$python = Find-Python
$build = 'cpu'
if (-not $Cpu) {
    $cuda = Get-CudaVersion
    if ($null -eq $cuda) {
        Write-Host 'no NVIDIA GPU found: PyTorch build cpu'
    }
    else {
        $build = Get-TorchBuild $cuda
        if ($build -eq 'cpu') {
            Write-Host "warning: the NVIDIA driver supports CUDA $cuda, PyTorch needs 12.6: installing the CPU build"
            Write-Host 'hint: update the driver and run this script again'
        }
        else {
            Write-Host "NVIDIA driver with CUDA ${cuda}: PyTorch build $build"
        }
    }
}

$extras = @('quickstart')
if (-not $Quickstart) {
    $extras += 'report'
    if ($build -ne 'cpu') { $extras += 'cuda' }
}
if ($Dev) { $extras += 'dev' }

Push-Location $PSScriptRoot
try {
    $venvPython = Join-Path '.venv' (Join-Path 'Scripts' 'python.exe')
    $venvCcrl = Join-Path '.venv' (Join-Path 'Scripts' 'ccrl.exe')
    if (-not (Test-Path $venvPython)) { Invoke-Step $python @('-m', 'venv', '.venv') }
    Invoke-Step $venvPython @('-m', 'pip', 'install', '--upgrade', 'pip')
    Invoke-Step $venvPython @('-m', 'pip', 'install', '--upgrade', $Torch, '--index-url', "$Wheels/$build")
    Invoke-Step $venvPython @('-m', 'pip', 'install', '-e', ".[$($extras -join ',')]")
    Invoke-Step $venvCcrl @('--version')
}
finally {
    Pop-Location
}
if (-not $DryRun) { Write-Host 'Done. Next: .venv\Scripts\Activate.ps1, then: ccrl run' }
