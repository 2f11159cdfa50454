"""Sandbox.untrusted(), and the same as other tools say it: its mounts one by one, its system call
filter, its environment, no capabilities, and no further user namespace where the tool knows how.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

from boxes import PROGRAM, Box
from contenders import Call, Contender, run_and_wait

import nsext

UNTRUSTED = "nsext.spawn, untrusted"
BWRAP = "bwrap, hardened"
NSJAIL = "nsjail"

# nsjail has a language of its own for filters.
KAFEL = (
    "POLICY few { ERRNO(1) { mount, umount, unshare, setns, pivot_root, chroot, bpf, keyctl, "
    "add_key, request_key, perf_event_open, init_module, finit_module, delete_module, kexec_load, "
    "swapon, swapoff, reboot, settimeofday } } USE few DEFAULT ALLOW"
)


def _sandbox(box: Box) -> nsext.Sandbox:
    made = nsext.Sandbox.untrusted()
    program = nsext.Bind(box.program, PROGRAM)
    return made.replace(mounts=[*made.mounts[:-1], program, made.mounts[-1]])


def _nsext(box: Box) -> Call:
    args, sandbox, spawn = [PROGRAM], _sandbox(box), nsext.spawn
    return lambda: spawn(args, sandbox=sandbox).wait()


def _bwrap_mounts(sandbox: nsext.Sandbox) -> Iterator[str]:
    for item in sandbox.mounts:
        match item:
            case nsext.Bind():
                yield from ("--ro-bind-try" if item.optional else "--ro-bind",)
                yield from (str(item.source), str(item.target or item.source))
            case nsext.Symlink():
                yield from ("--symlink", str(item.to), str(item.path))
            case nsext.Dir():
                yield from ("--perms", f"{item.mode:o}", "--dir", str(item.path))
            case nsext.Dev():
                yield from ("--dev", str(item.target))
            case nsext.Tmpfs():
                yield from ("--perms", f"{item.mode:o}", "--size", str(item.size))
                yield from ("--tmpfs", str(item.target))
            case nsext.Mask():
                if os.path.isfile(item.target):
                    yield from ("--ro-bind", "/dev/null", str(item.target))
            case nsext.Remount():
                yield from ("--remount-ro", str(item.target))
            case _:
                raise AssertionError(item)


def _bwrap(box: Box) -> Call | None:
    tool = shutil.which("bwrap")
    if tool is None:
        return None
    sandbox = _sandbox(box)
    argv = [tool, "--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent"]
    argv += ["--new-session", "--cap-drop", "ALL", "--hostname", "sandbox", "--clearenv"]
    if not box.user:
        argv += ["--uid", "65534", "--gid", "65534"]
    for name, value in (sandbox.env or {}).items():
        argv += ["--setenv", name, value]
    bpf = os.memfd_create("filter", 0)  # inherited
    os.write(bpf, nsext.seccomp_default())
    argv += ["--seccomp", str(bpf), "--proc", "/proc", *_bwrap_mounts(sandbox)]
    call = run_and_wait([*argv, "--chdir", "/tmp", PROGRAM])

    def rewound() -> None:
        os.lseek(bpf, 0, os.SEEK_SET)
        if call():
            raise RuntimeError("bwrap has failed")

    return rewound


def _nsjail(box: Box) -> Call | None:
    tool = shutil.which("nsjail")
    if tool is None:
        return None
    sandbox = _sandbox(box)
    argv = [tool, "--mode", "o", "--really_quiet", "--hostname", "sandbox", "--cwd", "/tmp"]
    own = "65534:65534:1" if not box.user else "65534"
    argv += ["--user", own, "--group", own, "--seccomp_string", KAFEL, "--rlimit_core", "0"]
    argv += ["--rlimit_fsize", "1024", "--rlimit_nofile", "1024", "--rlimit_nproc", "1024"]
    for name, value in (sandbox.env or {}).items():
        argv += ["--env", f"{name}={value}"]
    for item in sandbox.mounts:
        match item:
            case nsext.Bind() if os.path.exists(str(item.source)):
                argv += ["--bindmount_ro", f"{item.source}:{item.target or item.source}"]
            case nsext.Symlink():
                argv += ["--symlink", f"{item.to}:{item.path}"]
            case nsext.Tmpfs():
                argv += ["--mount", f"none:{item.target}:tmpfs:size={item.size}"]
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        argv += ["--bindmount", f"/dev/{name}"]
    call = run_and_wait([*argv, "--", PROGRAM])

    def checked() -> None:
        if call():
            raise RuntimeError("nsjail has failed")

    return checked


_MAKERS: dict[str, Callable[[Box], Call | None]] = {
    UNTRUSTED: _nsext,
    BWRAP: _bwrap,
    NSJAIL: _nsjail,
}


def boxes(box: Box) -> list[Contender]:
    """Those that exist here."""
    found = ((name, make(box)) for name, make in _MAKERS.items())
    return [Contender(name, call) for name, call in found if call is not None]
