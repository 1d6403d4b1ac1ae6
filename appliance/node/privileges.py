"""Started as root, a node becomes an ordinary user before it does anything: PostgreSQL refuses root, and so do we."""

import os
import pwd

RUN_USERS = ("postgres", "nobody")


class PrivilegeError(Exception):
    """There is no user to become."""


def run_user() -> pwd.struct_passwd:
    """Whom the node and PostgreSQL run as: the present user, or for root `postgres`, else `nobody`."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    for name in RUN_USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise PrivilegeError(f"started as root and there is no user {' or '.join(RUN_USERS)}: create one")


def drop() -> pwd.struct_passwd:
    """Become the run user for good, with its groups; does nothing for an ordinary user."""
    user = run_user()
    if os.geteuid() == 0:
        os.initgroups(user.pw_name, user.pw_gid)
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        os.environ.update(HOME=user.pw_dir, USER=user.pw_name, LOGNAME=user.pw_name)
    os.umask(0o077)
    return user
