"""What is imported late for the sake of the nsext command, imported early for everybody else.

A library's caller may chroot, or move into another mount namespace, and spawn from there: nothing
may have to be found on disk by then, also not for the words of an error.
"""
# ruff: noqa: F401

import dataclasses
import fcntl
import grp
import pwd
import resource
import select
import struct
import tempfile

from . import (
    _capabilities,
    _cgroup,
    _cgroup_handle,
    _cgroupfs,
    _clone_flags,
    _compile_mounts,
    _describe,
    _grouped,
    _handed,
    _hints,
    _hints_mounts,
    _idmaps,
    _join,
    _landlock,
    _nsfs,
    _seccomp,
    _timeout,
    _usage,
    _wait_async,
)
from ._helper import helper

helper()
