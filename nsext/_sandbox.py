"""Sandbox: a description that can spawn."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, Unpack

from . import _async, _run, _text
from ._explain import explain
from ._popen import Popen
from ._process import Process
from ._spawn import Args, argument_list, spawn
from ._spec import Spec

if TYPE_CHECKING:
    from ._keywords import SandboxFields


class Sandbox(Spec):
    """What a child shall be like: frozen, equal and hashable by value, picklable.

    Every spawning function takes one as ``sandbox=``, and every field as a keyword, which then
    replaces the sandbox's field as a whole.

    new: kinds of namespaces to make: "pid mnt", ["pid", "mnt"], CLONE_NEW* flags, "all".
    uid_map, gid_map: the maps of a new user namespace: "root" (the default: the own id is 0
        inside), "self" (the own id stays), an int (the own id is that id inside), "auto" (the own
        id is 0, and all ids that the caller may map: subuid(5)), or (inside, outside, count)
        ranges.  What is more than the own id needs CAP_SETUID and CAP_SETGID, or newuidmap(1).
        See user_namespaces(7).
    hostname, domainname: at most 64 bytes; need a new uts namespace.
    time_offsets: {"boottime": seconds, "monotonic": seconds}; needs a new time namespace.  See
        time_namespaces(7).
    loopback: bring lo up; None: iff net is new.
    propagation: of the mounts in a new mount namespace: "private" (the default), "slave",
        "shared", "unchanged".  See mount_namespaces(7).
    proc: mount a fresh /proc; None: iff pid and mnt are new.
    root: the root directory: a path (read-only), or Bind, Overlay, Tmpfs or Mount without a target.
    mounts: mount specs, done in their order: Bind, Tmpfs, Dev, Proc, ReadOnly, File ...
    cwd, env, umask, start_new_session, process_group: as in subprocess.Popen; with root the cwd
        is /, with mounts the caller's path entered anew.
    rlimits: {name: limit or (soft, hard)}; limits are ints, "64m", "unlimited".  See
        getrlimit(2).
    affinity: CPU numbers.  See sched_setaffinity(2).
    user, group, extra_groups: as in subprocess.Popen; numbers only in a new user namespace, whose
        ids they are.  With user or group, and no extra_groups, supplementary groups are dropped.
    cgroup: the control group to be born in: a nsext.Cgroup (a new one, removed at the end), the
        path of one, or a descriptor of its directory.  See cgroups(7).
    init: keep a tiny init as PID 1 (without a pid namespace: as a subreaper), which reaps, passes
        signals on and ends the namespace when the program ends.
    kill_on_parent_exit: the child is killed when this process (not: this thread) ends.
    nice: the nice value itself, not an increment.  See setpriority(2).
    ionice: an I/O class, "none", "idle", "best-effort" or "realtime", or (class, level).  See
        ioprio_set(2).
    scheduler: a policy, "other", "batch" or "idle", or ("fifo" or "rr", priority).  See sched(7).
    oom_score_adj: -1000 to 1000; needs the helper body.  See proc_pid_oom_score_adj(5).
    personality: flags and the execution domain, as personality(2) takes them.
    timer_slack: nanoseconds.  See PR_SET_TIMERSLACK(2const).
    capabilities: names, as in capabilities(7), in any case, with or without "CAP_"; the program has
        exactly these, whoever it is; () none, "all" those that the child has.  None: what exec
        gives by the kernel's rules.
    ambient: capabilities to raise in the ambient set.
    securebits: as PR_SET_SECUREBITS(2const) takes them; set after the ids.
    no_new_privs: the program and its children gain nothing by exec.  None: iff user is new, or
        capabilities, landlock or seccomp are given.  See PR_SET_NO_NEW_PRIVS(2const).
    landlock: a nsext.Landlock: the files and ports that may be reached.
    landlock_strict: raise UnsupportedError where this kernel cannot do all of it; False: do what it
        can.
    seccomp: BPF in bytes, what exports it (SyscallFilter of pyseccomp or libseccomp), "default" for
        seccomp_default(), or several of these, loaded in order.  They have to let through execve,
        rt_sigaction, rt_sigprocmask and each other.  See seccomp(2).
    disable_userns: the program, root or not, can make no user namespace; verified.
    keyring: "new", an empty session keyring, or "inherit" the caller's.  None: "new" iff user is
        new or root is given.  See keyrings(7).
    exec_label: the program's SELinux context, as "user:role:type:level", or AppArmor profile.
    dumpable: of the child of clone(entry) only; exec sets it anew.  See PR_SET_DUMPABLE(2const).

    Raises TypeError and ValueError for what is wrong in a field, and for an option whose
    namespace is not new.
    """

    __slots__ = ()

    def explain(self, args: Args = ("PROGRAM",)) -> str:
        """Return the body and the ordered steps of a spawn, in words.  Nothing is spawned.

        Raises ValueError for what no spawn takes: dumpable=.
        """
        return explain(self, argument_list(args))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are given as plain values, as JSON and TOML have them.

        Raises ValueError for what has no text form: descriptors and live objects in join=.
        """
        return _text.to_dict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Make one of plain values, as to_dict() returns them.  Raises TypeError, ValueError."""
        return cls(**_text.from_dict(values))

    def to_toml(self) -> str:
        """Return the fields that are given as TOML.  Raises ValueError as to_dict() does."""
        return _text.to_toml(self)

    @classmethod
    def from_toml(cls, source: str | os.PathLike[str]) -> Self:
        """Make one of TOML: of a file, or of text, which is a str with a newline or a "=" in it.

        Raises TypeError and ValueError for what is wrong in it, OSError.
        """
        return cls(**_text.from_toml(source))

    @classmethod
    def untrusted(cls, **fields: Unpack[SandboxFields]) -> Self:
        """Make one for a program that nobody has read: every default on that a careful person sets.

        *fields* replace those defaults, each as a whole.  What is asked and cannot be had raises,
        here or when something is spawned: nothing is left out silently.  The page on untrusted
        programs says what each stops, and what none of them does.
        """
        from ._untrusted import defaults

        return cls(**{**defaults(), **fields})

    def run(self, *popenargs: Any, **kwargs: Any) -> Any:
        """nsext.run() with this sandbox."""
        return _run.run(*popenargs, sandbox=self, **kwargs)

    def call(self, *popenargs: Any, **kwargs: Any) -> int:
        """nsext.call() with this sandbox."""
        return _run.call(*popenargs, sandbox=self, **kwargs)

    def check_call(self, *popenargs: Any, **kwargs: Any) -> int:
        """nsext.check_call() with this sandbox."""
        return _run.check_call(*popenargs, sandbox=self, **kwargs)

    def check_output(self, *popenargs: Any, **kwargs: Any) -> Any:
        """nsext.check_output() with this sandbox."""
        return _run.check_output(*popenargs, sandbox=self, **kwargs)

    def popen(self, *popenargs: Any, **kwargs: Any) -> Popen:
        """nsext.Popen() with this sandbox."""
        return Popen(*popenargs, sandbox=self, **kwargs)

    def spawn(self, args: Args, **kwargs: Any) -> Process:
        """nsext.spawn() with this sandbox."""
        return spawn(args, sandbox=self, **kwargs)

    async def create_subprocess_exec(self, program: Any, *args: Any, **kwargs: Any) -> Any:
        """nsext.create_subprocess_exec() with this sandbox."""
        return await _async.create_subprocess_exec(program, *args, sandbox=self, **kwargs)

    async def create_subprocess_shell(self, cmd: str | bytes, **kwargs: Any) -> Any:
        """nsext.create_subprocess_shell() with this sandbox."""
        return await _async.create_subprocess_shell(cmd, sandbox=self, **kwargs)

    async def open_process(self, command: Any, **kwargs: Any) -> Any:
        """nsext.open_process() with this sandbox."""
        return await _async.open_process(command, sandbox=self, **kwargs)
