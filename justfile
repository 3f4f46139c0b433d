# Tasks of the project; `just` lists them. Each is one command that also works without just.

set windows-shell := ["powershell.exe", "-NoLogo", "-Command"]

# List the tasks.
default:
    @just --list

# Install the package for development.
setup:
    pip install -e ".[dev]"

# Check style and formatting.
lint:
    ruff check .
    ruff format --check .

# Check types.
types:
    mypy

# Check the directions of imports.
imports:
    lint-imports

# Run the tests, or some: just test tests/unit -k parsing
test *arguments:
    pytest {{ arguments }}

# Run the slow tests: real training, end to end.
slow *arguments:
    pytest -m slow {{ arguments }}

# Do what continuous integration does, in a fresh environment.
ci:
    bash .ci/run

# Run every test on Windows' Python, under Wine.
windows:
    bash .ci/run windows

# Run a benchmark: just bench parsing
bench name *arguments:
    python benchmarks/{{ name }}.py {{ arguments }}
