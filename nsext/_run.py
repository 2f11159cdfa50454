"""run() and its kin: subprocess's, over our Popen."""

from __future__ import annotations

import subprocess
from subprocess import PIPE, STDOUT, CalledProcessError, TimeoutExpired
from typing import Any

from ._cgroup_handle import CgroupStats
from ._limits import NO_LIMITS, LimitedPopen, Limits, Verdict, Watch, limits_of
from ._popen import Popen
from ._usage import Usage, usage_of


class _Popen(Popen):
    """Of whom nobody can ask for the root directory."""

    _keeps_root = False


class CompletedProcess(subprocess.CompletedProcess):  # type: ignore[type-arg]
    """As subprocess.CompletedProcess: args, returncode, stdout, stderr; and how it went."""

    _ended: bytes | None = None
    _begun = 0
    _stats: CgroupStats | None = None
    _verdict: Verdict | None = None

    @property
    def usage(self) -> Usage | None:
        """What it has used; None where somebody else has waited for it."""
        if self._ended is None:
            return None
        return usage_of(self._ended, self._begun, self._stats)

    @property
    def verdict(self) -> Verdict:
        """How it ended, in a word: "ok", "nonzero" or "signal" by itself; "timeout", "cpu" or
        "output" at a limit of run()'s; "memory" by the OOM killer in a control group of its own.
        """
        if self._verdict is not None:
            return self._verdict
        if self._stats is not None and self._stats.oom_kills:
            return "memory"
        return "signal" if self.returncode < 0 else "nonzero" if self.returncode else "ok"


def run(
    *popenargs: Any,
    input: Any = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    cpu_time_limit: float | None = None,
    wall_time_limit: float | None = None,
    output_limit: int | str | None = None,
    **kwargs: Any,
) -> Any:
    """Run a program to its end and return a CompletedProcess.

    As subprocess.run, plus the keywords of nsext.Popen.  *timeout* (seconds) bounds the set-up,
    too.  When it is over the child is killed; in a pid namespace of its own, all that it started
    with it.

    cpu_time_limit, wall_time_limit (seconds), output_limit (bytes of what is captured, both
    streams together): at a limit the child is killed, too, but nothing is raised: the result's
    ``verdict`` tells.

    Raises TimeoutExpired, CalledProcessError with *check*, and what Popen raises.
    """
    if kwargs.get("paused"):
        raise TypeError("paused= is for Popen: run() has nobody who could resume")
    if kwargs.get("pty"):
        if capture_output:
            raise ValueError("capture_output= with pty=True: what the terminal shows is stdout")
        if cpu_time_limit is not None or wall_time_limit is not None or output_limit is not None:
            raise ValueError("pty=True with limits: use nsext.Popen")
    elif input is not None:
        if kwargs.get("stdin") is not None:
            raise ValueError("stdin and input arguments may not both be used.")
        kwargs["stdin"] = PIPE
    if capture_output:
        if kwargs.get("stdout") is not None or kwargs.get("stderr") is not None:
            raise ValueError("stdout and stderr arguments may not be used with capture_output.")
        kwargs["stdout"] = PIPE
        kwargs["stderr"] = PIPE
    if timeout is not None:
        kwargs.setdefault("spawn_timeout", timeout)
    if cpu_time_limit is not None or wall_time_limit is not None or output_limit is not None:
        limits = limits_of(cpu_time_limit, wall_time_limit, output_limit)
        return _run_limited(limits, popenargs, input, timeout, check, kwargs)
    with _Popen(*popenargs, **kwargs) as process:
        try:
            own = process._group is not None and process._group.own
            if own and process.pty is None:
                # What it leaves behind ends with it, and does not hold the pipes open.
                stdout, stderr = Watch(process, NO_LIMITS, input, timeout).run()
            else:
                stdout, stderr = process.communicate(input, timeout=timeout)
        except TimeoutExpired:
            process.kill()
            process.wait()  # communicate() has put what was read into the exception
            raise
        except BaseException:  # KeyboardInterrupt too; communicate() has waited a little for it
            process.kill()
            raise
        code = process.poll()
        if check and code:
            raise CalledProcessError(code, process.args, output=stdout, stderr=stderr)
    return _completed(process, stdout, stderr)


def _completed(process: Popen, stdout: Any, stderr: Any) -> CompletedProcess:
    code: Any = process.returncode
    done = CompletedProcess(process.args, code, stdout, stderr)
    done._ended, done._begun = process._ended, process._begun
    if process._group is not None:
        done._stats = process._last_stats()
    return done


def _run_limited(
    limits: Limits,
    popenargs: tuple[Any, ...],
    data: Any,
    timeout: float | None,
    check: bool,
    kwargs: dict[str, Any],
) -> CompletedProcess:
    if limits.output is not None and PIPE not in (kwargs.get("stdout"), kwargs.get("stderr")):
        raise ValueError("output_limit= is for captured output: add capture_output=True")
    if limits.wall is not None:
        kwargs.setdefault("spawn_timeout", limits.wall)
    with LimitedPopen(*popenargs, cpu_limit=limits.cpu, **kwargs) as process:
        watch = Watch(process, limits, data, timeout)
        try:
            stdout, stderr = watch.run()
        except BaseException:
            process.kill()
            raise
        process.wait()
    done = _completed(process, stdout, stderr)
    done._verdict = watch.verdict
    usage = done.usage
    if watch.verdict is None and limits.cpu is not None and usage is not None:
        if usage.user + usage.system > limits.cpu:
            done._verdict = "cpu"  # too late to be killed for it
    if check and done.returncode:
        raise CalledProcessError(done.returncode, done.args, output=stdout, stderr=stderr)
    return done


def call(*popenargs: Any, timeout: float | None = None, **kwargs: Any) -> int:
    """Run a program to its end and return its return code.  As subprocess.call."""
    if timeout is not None:
        kwargs.setdefault("spawn_timeout", timeout)
    with _Popen(*popenargs, **kwargs) as process:
        try:
            return process.wait(timeout=timeout)
        except BaseException:
            process.kill()
            raise


def check_call(*popenargs: Any, **kwargs: Any) -> int:
    """As call(), but raise CalledProcessError where the return code is not 0."""
    code = call(*popenargs, **kwargs)
    if code:
        raise CalledProcessError(code, kwargs["args"] if "args" in kwargs else popenargs[0])
    return 0


def check_output(*popenargs: Any, timeout: float | None = None, **kwargs: Any) -> Any:
    """Run a program and return its output.  As subprocess.check_output.

    Raises CalledProcessError where the return code is not 0.
    """
    for name in ("stdout", "check"):
        if name in kwargs:
            raise ValueError(f"{name} argument not allowed, it will be overridden.")
    if "input" in kwargs and kwargs["input"] is None:
        # An explicit None is an empty input, not an inherited one.
        text = kwargs.get("universal_newlines") or kwargs.get("text")
        text = text or kwargs.get("encoding") or kwargs.get("errors")
        kwargs["input"] = "" if text else b""
    if kwargs.get("pty"):
        if kwargs.get("stderr") == STDOUT:  # it is on the terminal, too
            del kwargs["stderr"]
    else:
        kwargs["stdout"] = PIPE
    return run(*popenargs, timeout=timeout, check=True, **kwargs).stdout


def getstatusoutput(
    cmd: Any, *, encoding: str | None = None, errors: str | None = None, **kwargs: Any
) -> tuple[int, str]:
    """Run *cmd* in a shell; return (return code, output).  As subprocess.getstatusoutput."""
    code = 0
    try:
        output = check_output(
            cmd, shell=True, text=True, stderr=STDOUT, encoding=encoding, errors=errors, **kwargs
        )
    except CalledProcessError as error:
        output, code = error.output, error.returncode
    return code, output.removesuffix("\n")


def getoutput(
    cmd: Any, *, encoding: str | None = None, errors: str | None = None, **kwargs: Any
) -> str:
    """Run *cmd* in a shell; return its output.  As subprocess.getoutput."""
    return getstatusoutput(cmd, encoding=encoding, errors=errors, **kwargs)[1]
