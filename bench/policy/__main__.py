"""`python -m bench.policy`: the whole matrix, as tables in docs/policy.md and policy-cells.md, and as pictures."""

from __future__ import annotations

import argparse
import os
import sys

from bench.policy import plots, report, runs, scenarios

DOCS = runs.ROOT / "docs"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.policy", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="of each cell (default %(default)s)")
    parser.add_argument("--only", default="", metavar="B1,B3", help="cells whose names begin so: print, write nothing")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="side by side (default %(default)s)")
    flags = parser.parse_args()
    wanted = tuple(part for part in flags.only.split(",") if part)
    cells = [cell for cell in scenarios.matrix() if not wanted or cell.key.startswith(wanted)]
    if not cells or flags.seeds < 1 or flags.jobs < 1:
        print(
            f"nothing to run: no cell begins with {flags.only!r}, or no seeds, or no jobs; cells are B1 to B15",
            file=sys.stderr,
        )
        return 2
    results = runs.run_all(cells, range(1, flags.seeds + 1), flags.jobs, lambda line: print(f"... {line}", flush=True))
    if wanted:
        print("\n".join(report.everybody(cells, results)))
        return 0
    lines = report.lines(cells, results, flags.seeds)
    report.write(DOCS / "policy.md", lines)
    report.write(DOCS / "policy-cells.md", ["", *report.everybody(cells, results)])
    files = plots.draw(DOCS / "images", cells, results)
    print("\n".join(lines))
    print(f"written: {', '.join(str(file) for file in (DOCS / 'policy.md', DOCS / 'policy-cells.md', *files))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
