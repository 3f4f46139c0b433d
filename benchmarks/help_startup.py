"""Start-up of ``ccrl --help`` against a bare Typer app, in fresh interpreters, side by side.

    python benchmarks/help_startup.py [--rounds 15]

Prints the median seconds of both and their ratio (wanted: at most 2).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

BARE = """
import typer
app = typer.Typer()
@app.command()
def hello(name: str = "you"):
    "Say hello."
app(["--help"])
"""
CCRL = "from ccrl_cli.cli.app import invoke; raise SystemExit(invoke(['--help']))"


def seconds(program: str) -> float:
    """Return the wall time of a program in a fresh interpreter."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Time both in turns and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    bare, ccrl = [], []
    for _ in range(rounds):  # in turns, so that a busy moment meets both
        bare.append(seconds(BARE))
        ccrl.append(seconds(CCRL))
    a, b = statistics.median(bare), statistics.median(ccrl)
    print(f"bare Typer app {a:.3f} s, ccrl --help {b:.3f} s, ratio {b / a:.2f} ({rounds} rounds)")


if __name__ == "__main__":
    main()
