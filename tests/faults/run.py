"""Fault campaign: kill, race and mangle the product, and count what survived.

    python tests/faults/run.py [--seed N] [group ...]

Each group is a module of this folder with `run(seed) -> Result`. Too slow for `make test`, which holds one small case
of every group; exits with 1 if anything was lost.
"""

import argparse
import importlib
import sys
import time
from pathlib import Path

from result import Result

GROUPS = tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem not in ("run", "result")))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], help="default: all")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    lost = 0
    print(f"{'group':<24}{'tried':>8}{'survived':>10}{'lost':>6}{'seconds':>9}   (seed {asked.seed})", flush=True)
    for group in asked.groups or GROUPS:
        start = time.perf_counter()
        result: Result = importlib.import_module(group).run(asked.seed)
        seconds = time.perf_counter() - start
        print(f"{group:<24}{result.tried:>8}{result.survived:>10}{len(result.lost):>6}{seconds:>9.0f}", flush=True)
        for problem in result.lost:
            print(f"    {problem}", flush=True)
        lost += len(result.lost)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
