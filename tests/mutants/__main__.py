"""`./dev mutants`: break each rule of raft/ and of the gate between versions in turn: what is named for it must notice.

The lists are raft.toml and formats.toml. Everything named there passes on the sources as they are (that is looked at
first), and must fail with its mutant. Exits 1 when a mutant survives, 2 when list and sources do not fit each other.
"""

import argparse
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from tests.mutants.edits import UnfitError, check, failing_without, missed_by, mutants


def main():
    options = parse()
    wanted = [mutant for mutant in mutants() if all(word in mutant.name for word in options.words)]
    if options.list:
        print("\n".join(mutant.name for mutant in wanted))
        return 0
    began_s = time.monotonic()
    try:
        for mutant in wanted:
            check(mutant)
        if not wanted or (wrong := failing_without(wanted)):
            raise UnfitError("there is no such mutant" if not wanted else f"fails without any mutant: {wrong}")
        survived = try_all(wanted, options.jobs)
    except UnfitError as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2
    noticed = len(wanted) - survived
    print(f"{noticed} of {len(wanted)} mutants noticed, {survived} survived, {time.monotonic() - began_s:.0f} s")
    return 1 if survived else 0


def parse():
    parser = argparse.ArgumentParser(
        prog="./dev mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="only those with all these in their name")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--list", action="store_true", help="only say which there are")
    return parser.parse_args()


def try_all(wanted, jobs):
    """How many survive."""
    survived = 0
    with ThreadPoolExecutor(jobs) as pool:
        for mutant, missed in zip(wanted, pool.map(missed_by, wanted), strict=True):
            print(f"{'SURVIVED' if missed else 'noticed '} {mutant.name}", flush=True)
            for each in missed:
                print(f"         not by {each}", flush=True)
            survived += bool(missed)
    return survived


if __name__ == "__main__":
    sys.exit(main())
