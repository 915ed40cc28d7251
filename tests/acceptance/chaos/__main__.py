"""`make chaos SEED=... MINUTES=...`: faults for so long, then the verdict; exit code 1 if a run is lost,
doubled or wrong."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.acceptance.chaos import campaign
from tests.acceptance.chaos.faults import KINDS


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="of load and faults; a random one by default")
    parser.add_argument("--minutes", type=float, default=5, help="how long faults are injected")
    parser.add_argument("--pause", type=float, default=2.0, help="the longest time between two faults")
    parser.add_argument("--rate", type=float, default=6.0, help="runs sent a second")
    parser.add_argument(
        "--only", action="append", default=[], choices=list(KINDS), help="faults of this class"
    )
    parser.add_argument("--folder", type=Path, help="where the logs go; a new folder by default")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)  # Postgres may run as another user
    plan = campaign.Plan(seed, 60 * options.minutes, options.pause, options.rate, options.only)
    return campaign.run(plan, folder)


if __name__ == "__main__":
    sys.exit(main())
