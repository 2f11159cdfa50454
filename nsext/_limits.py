"""run() with limits: one loop over the pipes, the pidfd and the clocks.  No thread."""

from __future__ import annotations

import codecs
import fcntl
import math
import os
import resource
import selectors
import time
from dataclasses import dataclass
from subprocess import TimeoutExpired
from typing import Any, Literal

from . import _values
from ._popen import Popen
from ._proc import read
from ._spec import Spec

Verdict = Literal["ok", "nonzero", "signal", "timeout", "cpu", "memory", "output"]

_CHUNK = 1 << 15
_SHORTEST = 0.005  # seconds between two looks at the CPU clocks
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use; None: as much as it likes."""

    cpu: float | None  # seconds, of all its processes together
    wall: float | None  # seconds since the start of its set-up
    output: int | None  # bytes of all that is captured


NO_LIMITS = Limits(None, None, None)


def _seconds(value: Any, what: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} must be a number of seconds, not {type(value).__name__}")
    if not 0 < value < math.inf:
        raise ValueError(f"{what}: {value} is no positive number of seconds")
    return float(value)


def limits_of(cpu: Any, wall: Any, output: Any) -> Limits:
    """Check them.  Raises TypeError and ValueError."""
    size = None if output is None else _values.size(output, "output_limit")
    return Limits(
        _seconds(cpu, "cpu_time_limit"),
        _seconds(wall, "wall_time_limit"),
        None if size == _values.INFINITY else size,
    )


def _with_backstop(spec: Spec, cpu: float) -> Spec:
    """RLIMIT_CPU a second above the limit, for a process that outruns the loop here."""
    soft, hard = math.ceil(cpu) + 1, math.ceil(cpu) + 2
    given = spec.rlimits.get("cpu")  # type: ignore[call-overload]
    most: Any = given or resource.getrlimit(resource.RLIMIT_CPU)
    if most[1] not in (resource.RLIM_INFINITY, _values.INFINITY):
        hard = min(hard, most[1])
    if most[0] not in (resource.RLIM_INFINITY, _values.INFINITY):
        soft = min(soft, most[0])
    key = "cpu", min(soft, hard), hard
    limited: Spec | None = spec._plans.get(key)
    if limited is None:
        rlimits: Any = {**spec.rlimits, "cpu": key[1:]}
        limited = spec._plans[key] = spec.replace(rlimits=rlimits)
    return limited


class LimitedPopen(Popen):
    """A Popen that can be measured exactly, with a backstop for its CPU time."""

    _keeps_root = False

    _exact = True

    def __init__(self, *args: Any, cpu_limit: float | None, **kwargs: Any) -> None:
        self._cpu_limit = cpu_limit
        super().__init__(*args, **kwargs)

    def _execute_child(self, *args: Any) -> None:
        if self._cpu_limit is not None:
            self._spec = _with_backstop(self._spec, self._cpu_limit)
        super()._execute_child(*args)


def _own_time(pid: int) -> float:
    """The CPU time of one process: clock_getcpuclockid(3).  Raises OSError."""
    return time.clock_gettime(~pid << 3 | 2)


def tree_time(pid: int) -> float:
    """The CPU time of a process, of its descendants, and of those that were waited for.

    Never too much: each process is asked before its children, so that one that is waited for
    meanwhile is not counted twice.
    """
    total = 0.0
    left = [pid]
    while left:
        parent = left.pop()
        try:
            stat = read(f"/proc/{parent}/stat")
            fields = stat[stat.rindex(")") + 2 :].split()
            total += (int(fields[13]) + int(fields[14])) / _TICKS  # cutime, cstime
            total += _own_time(parent)
            for task in os.listdir(f"/proc/{parent}/task"):
                left += map(int, read(f"/proc/{parent}/task/{task}/children").split())
        except (OSError, ValueError):
            pass  # it has ended, or the kernel has no such file
    return total


class _Stream:
    """What one pipe has brought."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.parts: list[bytes] = []

    def bytes(self) -> bytes:
        return b"".join(self.parts)

    def result(self, cut: bool) -> Any:
        """The output as communicate() has it; where it was cut, without half a character."""
        encoding = getattr(self.file, "encoding", None)
        if encoding is None:
            return self.bytes()
        decoder = codecs.getincrementaldecoder(encoding)(self.file.errors)
        text = decoder.decode(self.bytes(), not cut)
        return text.replace("\r\n", "\n").replace("\r", "\n")


def _input_bytes(value: Any, file: Any) -> memoryview:
    if isinstance(value, str):
        value = value.encode(file.encoding, file.errors)
    return memoryview(value).cast("B")


class Watch:
    """communicate(), which ends a program that passes one of its limits."""

    def __init__(self, process: Popen, limits: Limits, data: Any, timeout: float | None) -> None:
        self.process = process
        self.limits = limits
        self.timeout = timeout
        self.verdict: Verdict | None = None  # of ours; None: it has ended by itself
        begun = process._begun / 1e9
        self.end = math.inf if limits.wall is None else begun + limits.wall
        self.expiry = math.inf if timeout is None else time.monotonic() + timeout
        self.cpu_check = math.inf if limits.cpu is None else 0.0
        self.streams = {
            name: _Stream(file)
            for name in ("stdout", "stderr")
            if (file := getattr(process, name)) is not None
        }
        self.room = math.inf if limits.output is None else limits.output
        self.input = None if data is None else _input_bytes(data, process.stdin)
        if process.stdin is not None and not self.input:
            process.stdin.close()

    def run(self) -> tuple[Any, Any]:
        """Return (stdout, stderr) once it has ended.  Raises TimeoutExpired for timeout=."""
        with selectors.DefaultSelector() as selector:
            self.selector = selector
            selector.register(self.process.fileno(), selectors.EVENT_READ, self._ended)
            for stream in self.streams.values():
                os.set_blocking(stream.file.fileno(), False)
                selector.register(stream.file, selectors.EVENT_READ, stream)
            if self.input:
                os.set_blocking(self.process.stdin.fileno(), False)  # type: ignore[union-attr]
                selector.register(self.process.stdin, selectors.EVENT_WRITE, self._write)  # type: ignore[arg-type]
            while selector.get_map() and self.verdict is None:
                self._wait()
        if self.verdict is not None:
            self._stop()
        cut = self.verdict is not None
        out, err = (
            self.streams[name].result(cut) if name in self.streams else None
            for name in ("stdout", "stderr")
        )
        return out, err

    def _wait(self) -> None:
        now = time.monotonic()
        if now >= self.expiry:
            self._stop()
            out, err = (
                self.streams[name].bytes() if name in self.streams else None
                for name in ("stdout", "stderr")
            )
            raise TimeoutExpired(self.process.args, self.timeout or 0.0, output=out, stderr=err)
        if now >= self.end:
            self.verdict = "timeout"
            return
        if now >= self.cpu_check and self._look_at_the_clock(now):
            self.verdict = "cpu"
            return
        until = min(self.expiry, self.end, self.cpu_check)
        events = self.selector.select(None if until == math.inf else max(0.0, until - now))
        for key, _ in events:
            if isinstance(key.data, _Stream):
                self._read(key.data)
            else:
                key.data()
            if self.verdict is not None:
                return

    def _look_at_the_clock(self, now: float) -> bool:
        """Has it passed the limit?  If not, look again when it can have, on all CPUs at once."""
        assert self.limits.cpu is not None
        group = self.process._group
        used = None if group is None else group.cpu_time()
        left = self.limits.cpu - (tree_time(self.process.pid) if used is None else used)
        self.cpu_check = now + max(left / (os.cpu_count() or 1), _SHORTEST)
        return left < 0

    def _ended(self) -> None:
        self.selector.unregister(self.process.fileno())
        self.process.poll()  # now, for its wall time
        self.cpu_check = math.inf

    def _read(self, stream: _Stream) -> None:
        try:
            data = os.read(stream.file.fileno(), _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self.selector.unregister(stream.file)
            return
        self._take(stream, data)

    def _take(self, stream: _Stream, data: bytes) -> None:
        if len(data) > self.room:
            self.verdict = self.verdict or "output"
            data = data[: int(self.room)]
        self.room -= len(data)
        stream.parts.append(data)

    def _write(self) -> None:
        file = self.process.stdin
        assert file is not None and self.input is not None
        try:
            self.input = self.input[os.write(file.fileno(), self.input) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.input = None
        if not self.input:
            self.selector.unregister(file)
            file.close()

    def _stop(self) -> None:
        """Kill it, and take what is in the pipes; who else holds them is not waited for."""
        self.process.kill()
        self.process.wait()  # with a control group of its own all of it is gone now
        for stream in self.streams.values():
            fd = stream.file.fileno()
            left = fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)  # not more: somebody may go on writing
            while left > 0 and self.room:
                try:
                    data = os.read(fd, left)
                except BlockingIOError:
                    break
                if not data:
                    break
                left -= len(data)
                self._take(stream, data)
