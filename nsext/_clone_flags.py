"""CloneFlags: the CLONE_NEW* flags as an enum, for callers."""

from __future__ import annotations

import enum

from . import _flags


class CloneFlags(enum.IntFlag):
    """The CLONE_NEW* flags of clone(2), with the values of ``os.CLONE_NEW*``."""

    NEWTIME = _flags.NEWTIME
    NEWNS = _flags.NEWNS
    NEWCGROUP = _flags.NEWCGROUP
    NEWUTS = _flags.NEWUTS
    NEWIPC = _flags.NEWIPC
    NEWUSER = _flags.NEWUSER
    NEWPID = _flags.NEWPID
    NEWNET = _flags.NEWNET


_flags.public = CloneFlags
