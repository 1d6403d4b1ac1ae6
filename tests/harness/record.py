"""What long runs found, one JSON object a line, and of which sources."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
EVIDENCE = Path("docs", "evidence", "runs.jsonl")
"""in the repository"""


def commit_of(*paths: str) -> str:
    """The commit that is run; `+` when one of these paths differs from it."""
    changed = _git("status", "--porcelain", "--", *paths)
    return (_git("rev-parse", "--short=12", "HEAD") or "no commit") + ("+" if changed else "")


def changed_since(commit: str, *paths: str) -> bool:
    """Whether one of these paths differs from that commit; also when nobody knows the commit."""
    done = subprocess.run(["git", "-C", REPOSITORY, "diff", "--quiet", commit, "--", *paths], check=False)
    return done.returncode != 0


def record(report: Mapping[str, object]) -> None:
    with (REPOSITORY / EVIDENCE).open("a") as file:
        file.write(json.dumps(report) + "\n")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", REPOSITORY, *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()
