"""A demo's directory: made, given to the run user, and checked to be of use to that user before anything starts."""

import os
import pwd
import stat
import sys
from pathlib import Path

import appliance
from appliance.cli.demo.layout import MANIFEST, Layout, is_demo, supervisor_log
from appliance.cli.demo.processes import noted
from appliance.cli.exits import Code, CommandError
from appliance.node.privileges import PrivilegeError, drop, run_user


def prepare(directory: Path) -> None:
    """Make the directory and give it to the run user. Raises CommandError when it cannot be used."""
    user = _user()
    _refuse_foreign(directory)
    closed = closed_to(user, directory.parent)
    if closed is not None:
        mode = stat.S_IMODE(closed.stat().st_mode)
        message = f"user {user.pw_name}, who runs PostgreSQL, cannot enter {closed} (mode {mode:o})"
        raise CommandError(Code.REFUSED, f"{message}: choose another --dir, or leave it out")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        found = directory.lstat()  # a link that somebody has put there would give away what it leads to
        if not stat.S_ISDIR(found.st_mode):
            raise CommandError(Code.REFUSED, f"{directory} is a link: name the directory itself with --dir")
        owner = found.st_uid
        if os.geteuid() == 0 and owner == 0:
            os.chown(directory, user.pw_uid, user.pw_gid)
        elif owner != user.pw_uid:
            raise CommandError(Code.REFUSED, f"{directory} is not {user.pw_name}'s: choose another --dir")
        directory.chmod(0o755)
    except OSError as error:
        message = f"{directory}: {(error.strerror or str(error)).lower()}; choose another --dir"
        raise CommandError(Code.FAILED, message) from None


def _user() -> pwd.struct_passwd:
    try:
        return run_user()
    except PrivilegeError as error:
        raise CommandError(Code.FAILED, str(error)) from None


def _refuse_foreign(directory: Path) -> None:
    if is_demo(directory):
        layout = Layout.load(directory)
        running = noted(layout.supervisor_file)
        if running is not None:
            message = f"a demo runs in {directory} already, pid {running.pid}: see `appliance demo status`"
            raise CommandError(Code.REFUSED, message)
        return
    try:
        present = set(os.listdir(directory)) if os.path.isdir(directory) else set[str]()
    except OSError as error:
        message = f"{directory}: {(error.strerror or str(error)).lower()}; choose another --dir"
        raise CommandError(Code.REFUSED, message) from None
    if present - {supervisor_log(directory).name}:
        raise CommandError(Code.REFUSED, f"{directory} is not empty and has no {MANIFEST}: choose another --dir")


def closed_to(user: pwd.struct_passwd, directory: Path) -> Path | None:
    """The first directory on the way that the user may not enter, by mode and ownership."""
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    for place in (*reversed(directory.parents), directory):
        if not os.path.exists(place):
            return None
        seen = place.stat()
        needed = stat.S_IXUSR if seen.st_uid == user.pw_uid else stat.S_IXGRP if seen.st_gid in groups else stat.S_IXOTH
        if not seen.st_mode & needed:
            return place
    return None


def become_run_user(directory: Path) -> None:
    """From root to the run user, for good; then check that it can execute what a node is made of."""
    user = drop()
    os.chdir(directory)
    for needed in (Path(sys.executable), Path(appliance.__file__)):
        if not os.access(needed, os.R_OK):
            message = f"user {user.pw_name} cannot read {needed}: start it with ./dev demo, or install it elsewhere"
            raise CommandError(Code.REFUSED, message)
