"""More walks than the tests take: `python -m tests.model --seeds A..B [--steps N]`. A fault shows the way to it."""

import argparse
import sys
from random import Random

from tests.model.check import Checks
from tests.model.model import Model
from tests.model.search import walk
from tests.model.test_walks import PLENTY, WORLDS
from tests.model.world import agreed, running


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--seeds", default="0..200", help="A..B, B not included")
    parser.add_argument("--steps", type=int, default=250)
    args = parser.parse_args()
    first, last = (int(seed) for seed in args.seeds.split(".."))
    for name, large in WORLDS.items():
        start = agreed(large.nodes, *large.listed, fencing=large.fencing, wanted_k=large.wanted_k, mode=large.mode)
        model = Model(start, late_reports=large.late_reports)
        checks, steps = Checks(model), 0
        for seed in range(first, last):
            story = []
            for step, world in walk(model, running(large.nodes, *large.listed, left=PLENTY), Random(seed), args.steps):
                story.append(step)
                if fault := checks.fault(world):
                    print("\n".join((f"{name}, seed {seed}: {fault}", *story)))
                    sys.exit(1)
            steps += len(story)
        print(f"{name}: {last - first} seeds, {steps} steps, {model.count} agreed states, nothing broken", flush=True)


if __name__ == "__main__":
    main()
