"""`./dev kill-loop`: three replica processes, killed over and over while clients write.

Each round kills one, two or all of them with SIGKILL at a moment drawn by chance, and starts them again; then everybody
must take a command. Compaction is on with small limits, so kills meet rewrites of journals and snapshots on their way.
After all rounds no acknowledged command may be lost, none applied twice, and all replicas must be equal; ends with one
line of verdict. The directory stays when something is wrong.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.harness.certificates import Certificates
from tests.raft.conftest import free_ports
from tests.raft.processes import Processes, Writers, lost_or_doubled

NAMES = ("n1", "n2", "n3")
COMPACT_ENTRIES, KEEP_ENTRIES = 60, 10
SETTLE_S = 15.0


@dataclass
class Verdict:
    problem: str | None
    rounds: int = 0
    kills: int = 0
    acknowledged: int = 0
    repeated: int = 0
    took_s: float = 0.0

    def __str__(self):
        return (
            f"{'ok' if self.problem is None else f'failed: {self.problem}'}: {self.rounds} rounds, {self.kills}"
            f" processes killed, {self.acknowledged} commands acknowledged, {self.repeated} times one was proposed"
            f" again, {self.took_s:.0f} s"
        )


def run(directory, rounds, chance):
    members = {name: f"127.0.0.1:{port}" for name, port in zip(NAMES, free_ports(len(NAMES)), strict=True)}
    limits = {"compact_entries": COMPACT_ENTRIES, "keep_entries": KEEP_ENTRIES}
    processes = Processes(directory, members, Certificates(directory / "certificates"), **limits)
    verdict, began_s = Verdict(None), time.monotonic()
    try:
        processes.start()
        processes.leader()
        writers = Writers(processes)
        try:
            for _ in range(rounds):
                verdict.kills += kill_some(processes, chance)
                verdict.rounds += 1
                take_commands(processes, f"round-{verdict.rounds}", writers.acknowledged)
        finally:
            writers.stop()
        verdict.acknowledged, verdict.repeated = len(writers.acknowledged), writers.repeated
        verdict.problem = wrong(processes, writers.acknowledged)
    except AssertionError as error:
        verdict.problem = f"in round {verdict.rounds}: {error}"
    finally:
        processes.close()
    verdict.took_s = time.monotonic() - began_s
    return verdict


def kill_some(processes, chance):
    """One, two or all; of less than all, with or without the leader."""
    time.sleep(chance.uniform(0.0, 0.3))
    number = chance.choice([1, 1, 1, 2, 3])
    leader = processes.leader()
    order = chance.sample([name for name in NAMES if name != leader], 2)
    order.insert(chance.choice([0, 2]), leader)
    victims = order[:number]
    processes.kill(*victims)
    time.sleep(chance.choice([0.0, chance.uniform(0.0, 1.0)]))
    processes.start(*victims)
    return len(victims)


def take_commands(processes, word, acknowledged):
    """Everybody is there again when a command comes back applied at each."""
    for name in NAMES:
        deadline_s = time.monotonic() + SETTLE_S
        while processes.ask(name, f"propose {word}-{name}") != "Applied":
            if time.monotonic() > deadline_s:
                raise AssertionError(f"{name} has not taken a command for {SETTLE_S:g} s")
            time.sleep(0.02)
        acknowledged.append(f"{word}-{name}")


def wrong(processes, acknowledged):
    """What must not be, in words; None: nothing."""
    deadline_s = time.monotonic() + SETTLE_S
    states = [processes.state(name) for name in NAMES]
    while len({len(state) for state in states}) > 1:
        if time.monotonic() > deadline_s:
            return f"the replicas are not equal: {[len(state) for state in states]} commands"
        states = [processes.state(name) for name in NAMES]
    if (problem := lost_or_doubled(states, acknowledged)) is not None:
        return problem
    firsts = [processes.status(name)["first_index"] for name in NAMES]
    if min(firsts) <= len(states[0]) - 2 * (COMPACT_ENTRIES + KEEP_ENTRIES):
        return f"nothing was compacted: logs begin at {firsts} with {len(states[0])} commands"
    return None


def main():
    parser = argparse.ArgumentParser(
        prog="./dev kill-loop", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of who is killed when")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="kill-loop-", dir="/var/tmp"))
    verdict = run(directory, options.rounds, random.Random(options.seed))
    print(f"{verdict}, seed {options.seed}")
    if verdict.problem is not None:
        print(f"what they left: {directory}")
        return 1
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
