"""Errors: what went wrong, where, why; of the class that subprocess would raise, or never of it."""

import copy
import errno
import json
import os
import pickle
import struct
import subprocess

import pytest
from support import as_user, changes, needs, script, state

import nsext
from nsext import SpawnError, SpawnTimeout, UnsupportedError


def caught(call, *args, **keywords):
    with pytest.raises(OSError) as info:
        call(*args, **keywords)
    return info.value


# ---- as subprocess raises them


def not_executable(tmp_path):
    file = tmp_path / "plain"
    file.write_text("#!/bin/sh\n")
    return file


def wrong_format(tmp_path):
    file = tmp_path / "garbage"
    file.write_bytes(b"\x00\x01\x02")
    file.chmod(0o755)
    return file


CASES = {
    "missing": lambda tmp: {"args": [str(tmp / "missing")]},
    "missing in PATH": lambda tmp: {"args": ["nsext-no-such-program"]},
    "missing, bytes": lambda tmp: {"args": [b"nsext-no-such-program"]},
    "missing, a path": lambda tmp: {"args": [tmp / "missing"]},
    "missing, one path": lambda tmp: {"args": tmp / "missing"},
    "missing, one string": lambda tmp: {"args": "nsext no such"},
    "missing executable": lambda tmp: {"args": ["true"], "executable": str(tmp / "missing")},
    "missing executable, a path": lambda tmp: {"args": ["true"], "executable": tmp / "missing"},
    "missing shell": lambda tmp: {"args": "x", "shell": True, "executable": "/no/shell"},
    "missing interpreter": lambda tmp: {"args": [script_of(tmp, "/no/such/interpreter")]},
    "a directory": lambda tmp: {"args": [str(tmp)]},
    "not executable": lambda tmp: {"args": [str(not_executable(tmp))]},
    "below a file": lambda tmp: {"args": [str(not_executable(tmp) / "x")]},
    "not executable in PATH": lambda tmp: {
        "args": [not_executable(tmp).name],
        "env": {"PATH": str(tmp)},
    },
    "wrong format": lambda tmp: {"args": [str(wrong_format(tmp))]},
    "too long": lambda tmp: {"args": ["true", "x" * (1 << 20)]},
    "name too long": lambda tmp: {"args": ["/" + "x" * 300]},
    "empty name": lambda tmp: {"args": [""]},
    "missing cwd": lambda tmp: {"args": ["true"], "cwd": str(tmp / "missing")},
    "missing cwd, bytes": lambda tmp: {"args": ["true"], "cwd": os.fsencode(tmp / "missing")},
    "missing cwd, a path": lambda tmp: {"args": ["true"], "cwd": tmp / "missing"},
    "cwd is a file": lambda tmp: {"args": ["true"], "cwd": str(not_executable(tmp))},
    "cwd and program missing": lambda tmp: {"args": ["/no/such"], "cwd": str(tmp / "missing")},
}


def script_of(tmp_path, interpreter):
    file = tmp_path / "script"
    file.write_text(f"#!{interpreter}\n")
    file.chmod(0o755)
    return str(file)


@pytest.mark.parametrize("case", CASES)
def test_same_as_subprocess(case, tmp_path):
    keywords = CASES[case](tmp_path)
    theirs = caught(subprocess.Popen, **keywords)
    for new in ("", "mnt"):
        ours = caught(nsext.Popen, new=new, **keywords)
        assert isinstance(ours, SpawnError)
        assert isinstance(ours, type(theirs))
        assert (ours.errno, ours.strerror) == (theirs.errno, theirs.strerror)
        if "cwd" not in keywords and isinstance(ours.filename, os.PathLike):
            # As given; subprocess's depends on whether it could use posix_spawn().
            assert os.fspath(ours.filename) == os.fspath(theirs.filename)
        else:
            assert (ours.filename, ours.filename2) == (theirs.filename, theirs.filename2)
            more = f" ({ours.hint})" if case == "missing interpreter" else ""
            assert str(ours) == str(theirs) + more
        assert ours.args == theirs.args
        assert ours.stage == ("cwd" if "cwd" in keywords else "exec")
        assert ours.step and ours.path is not None
        assert (ours.hint is not None) == (case == "missing interpreter")


# ---- which file is missing: not the program, and not the interpreter that is there


def elf_of(path, loader, wide=True):
    """A program that needs this loader: a header, and PT_INTERP alone."""
    text = os.fsencode(loader) + b"\0"
    machine = {"x86_64": (62, 3), "aarch64": (183, 40)}[os.uname().machine][not wide]
    if wide:
        ident = b"\177ELF\2\1\1" + bytes(9)
        head = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
        part = struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(text), len(text), 1)
    else:
        ident = b"\177ELF\1\1\1" + bytes(9)
        head = struct.pack("<HHIIIIIHHHHHH", 2, machine, 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0)
        part = struct.pack("<IIIIIIII", 3, 84, 0, 0, len(text), len(text), 4, 1)
    path.write_bytes(ident + head + part + text + bytes(64))
    path.chmod(0o755)
    return str(path)


def missing_of(program):
    """The path of the error, that has to be the same in each body."""
    errors = [caught(nsext.run, [program], new=new) for new in ("", "pid mnt")]
    errors.append(caught(nsext.run, [program], new="mnt", mounts=[nsext.Tmpfs("/mnt")]))
    for error in errors:
        assert isinstance(error, FileNotFoundError) and error.filename == program, error
    assert len({error.path for error in errors}) == 1, errors
    path, hint = errors[0].path, errors[0].hint
    assert hint == (None if path == program else f"its interpreter {path} is missing"), errors
    return path


def test_the_loader_is_missing(tmp_path):
    assert missing_of(elf_of(tmp_path / "program", "/no/such/ld.so")) == "/no/such/ld.so"


def test_the_loader_of_an_old_program_is_missing(tmp_path):
    program = elf_of(tmp_path / "program", "/no/such/ld32.so", wide=False)
    theirs = caught(subprocess.run, [program])
    needs(theirs.errno == errno.ENOENT, f"needs a kernel with 32-bit programs: {theirs}")
    assert missing_of(program) == "/no/such/ld32.so"


def test_the_loader_of_a_script_s_interpreter_is_missing(tmp_path):
    interpreter = elf_of(tmp_path / "interpreter", "/no/such/ld.so")
    assert missing_of(script_of(tmp_path, f" {interpreter} -x")) == "/no/such/ld.so"


def test_the_interpreter_of_a_script_s_interpreter_is_missing(tmp_path):
    (tmp_path / "below").mkdir()
    inner = script_of(tmp_path / "below", "/no/such/interpreter")
    assert missing_of(script_of(tmp_path, inner)) == "/no/such/interpreter"


@pytest.mark.parametrize("name", ["/no/such/\N{SNOWMAN}", "/no/such\x7f", "/bin/sh\r"])
def test_the_name_of_an_interpreter_is_whole(name, tmp_path):
    """A script from another system: its interpreter is "/bin/sh\\r", which there is not."""
    assert missing_of(script_of(tmp_path, name)) == name


def test_a_script_that_is_its_own_interpreter(tmp_path):
    error = caught(nsext.run, [script_of(tmp_path, tmp_path / "script")])
    assert error.errno == errno.ELOOP


def test_spawn_raises_the_same(tmp_path):
    for case in ("missing", "not executable", "missing cwd", "below a file"):
        keywords = CASES[case](tmp_path)
        args = keywords.pop("args")
        theirs = caught(subprocess.Popen, args, **keywords)
        ours = caught(nsext.spawn, args, **keywords)
        assert isinstance(ours, SpawnError) and isinstance(ours, type(theirs))
        assert (ours.errno, ours.filename) == (theirs.errno, theirs.filename)


def test_classes_by_name():
    assert isinstance(caught(nsext.run, ["/no"]), FileNotFoundError)
    assert isinstance(caught(nsext.run, ["/etc/passwd"]), PermissionError)
    assert isinstance(caught(nsext.run, ["/etc/passwd/x"]), NotADirectoryError)
    assert type(caught(nsext.run, [""], executable="/" + "x" * 300)) is SpawnError


def test_unprivileged_permission_errors():
    as_user("""
    for keywords in ({"args": ["/root/x"]}, {"args": ["true"], "cwd": "/root"}):
        for new in ("", "user mnt"):
            for module in (subprocess, nsext):
                try:
                    module.Popen(**keywords, **({"new": new} if module is nsext else {}))
                except PermissionError as error:
                    filename = keywords.get("cwd") or keywords["args"][0]
                    assert (error.errno, error.filename) == (errno.EACCES, filename)
                else:
                    raise AssertionError(keywords)
    """)


# ---- a set-up is never one of them


def test_set_up_is_never_mistaken_for_the_program():
    """ENOENT, EACCES and EPERM of a set-up must not pass as those of the program."""
    script("""
    fake_proc("self/x")
    for start in (nsext.spawn, nsext.Popen, nsext.run):
        try:
            start(["true"], new="user")
        except (FileNotFoundError, PermissionError) as error:
            raise AssertionError("taken for a missing program") from error
        except nsext.SpawnError as error:
            assert error.errno == errno.ENOENT and error.filename is None, error
            assert error.stage == "idmap" and error.path == "/proc/self/setgroups"
    """)
    as_user("""
    error = failure(nsext.run, ["true"], nice=-20)
    assert error.errno in (errno.EACCES, errno.EPERM) and is_plain(error), repr(error)
    assert error.filename is None
    error = failure(nsext.run, ["true"], new="mnt")
    assert error.errno == errno.EPERM and is_plain(error), repr(error)
    """)


@pytest.mark.usefixtures("root")
def test_attributes_of_a_set_up():
    error = caught(nsext.run, ["true"], new="user mnt", proc=True)
    assert (error.stage, error.step, error.path) == ("setup", "mount proc on /proc", "/proc")
    assert error.errno == errno.EPERM and error.filename is None
    assert error.args == (errno.EPERM, os.strerror(errno.EPERM))
    assert error.hint in str(error) and "mount proc on /proc" in str(error)
    assert str(error).startswith(f"[Errno {errno.EPERM}] ")


# ---- the likely cause


def test_limit_names_the_sysctl():
    """max_user_namespaces = 0, in a user namespace: ENOSPC."""
    script(
        """
        for kind in KINDS:
            Path(f"/proc/sys/user/max_{kind}_namespaces").write_text("0")
        for kind in KINDS:
            for start in (nsext.spawn, nsext.Popen):
                error = failure(start, ["true"], new=kind)
                assert error.errno == errno.ENOSPC and is_plain(error), (kind, error)
                assert error.stage == ("setup" if kind == "time" else "clone"), kind
                assert f"user.max_{kind}_namespaces" in error.hint, error.hint
        for _ in range(60):  # a leak would not show at 0; it does at 1
            failure(nsext.spawn, ["true"], new="user")
        """,
        new="user pid mnt",
    )


def test_failed_spawns_use_up_no_limit():
    """The kernel counts namespaces: one that stays behind would use the limit up."""
    script(
        """
        for kind in ("uts", "mnt", "net"):
            Path(f"/proc/sys/user/max_{kind}_namespaces").write_text("2")
        for _ in range(60):
            error = failure(nsext.spawn, ["/no/such"], new="uts mnt")
            assert isinstance(error, FileNotFoundError), error
        nsext.run(["true"], new="uts mnt", check=True)
        """,
        new="user pid mnt",
    )


def test_chroot_is_refused_with_a_hint(tmp_path):
    script(
        """
        os.mkdir(sys.argv[1] + "/proc")
        own_mounts()
        mount("proc", sys.argv[1] + "/proc", "proc")
        os.chroot(sys.argv[1])
        for start in (nsext.spawn, nsext.Popen):
            error = failure(start, ["true"], new="user")
            assert (error.errno, error.stage) == (errno.EPERM, "clone") and is_plain(error)
            assert "chroot" in error.hint, error.hint
        """,
        str(tmp_path),
    )


def test_process_limit_has_a_hint():
    as_user("""
    import resource
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
    for start in (nsext.spawn, nsext.Popen):
        error = failure(start, ["true"])
        assert (error.errno, error.stage) == (errno.EAGAIN, "clone") and is_plain(error), error
        assert "RLIMIT_NPROC" in error.hint
    """)


# ---- pickle

SAMPLES = [
    SpawnError(1, "no", stage="setup", step="do it", path="/x", hint="because"),
    SpawnTimeout(110, "late", cmd=["x"], timeout=2.5, stage="idmap", step="wait"),
    UnsupportedError(38, "needs Linux 9", stage="plan", step="think"),
]


def same(one, other):
    assert type(one) is type(other) and one.args == other.args
    for name in ("errno", "strerror", "filename", "stage", "step", "path", "hint"):
        assert getattr(one, name) == getattr(other, name), name
    assert str(one) == str(other) and repr(one) == repr(other)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(protocol, tmp_path):
    errors = [*SAMPLES, caught(nsext.run, ["true"], fd_map={5: 4000})]
    errors += [caught(nsext.run, **CASES[case](tmp_path)) for case in CASES]
    for error in errors:
        error.note = "mine"
        again = pickle.loads(pickle.dumps(error, protocol))
        same(error, again)
        assert again.note == "mine"
        same(error, copy.copy(error))
    timeout = pickle.loads(pickle.dumps(SAMPLES[1]))
    assert (timeout.cmd, timeout.timeout, timeout.output, timeout.stdout) == (
        ["x"],
        2.5,
        None,
        None,
    )


def test_pickle_in_another_process():
    error = caught(nsext.run, ["/no/such"])
    shown = script(f"""
    import pickle
    error = pickle.loads({pickle.dumps(error)!r})
    assert isinstance(error, FileNotFoundError) and isinstance(error, nsext.SpawnError)
    print(json.dumps([error.filename, error.stage, str(error)]))
    """)
    assert json.loads(shown) == ["/no/such", "exec", str(error)]


def test_families():
    for error in SAMPLES:
        assert isinstance(error, OSError) and isinstance(error, SpawnError)
    late = SAMPLES[1]
    assert isinstance(late, TimeoutError) and isinstance(late, subprocess.TimeoutExpired)
    assert isinstance(late, subprocess.SubprocessError)
    assert isinstance(SAMPLES[2], NotImplementedError)
    assert (late.errno, late.strerror) == (110, "late")
    assert "late" in str(late)


# ---- arguments are checked before any clone

WRONG = [
    ({"args": []}, ValueError, "empty"),
    ({"args": ()}, ValueError, "empty"),
    ({"args": ["a\0b"]}, ValueError, "null"),
    ({"args": ["true", "a\0b"]}, ValueError, "null"),
    ({"args": [b"a\0b"]}, ValueError, "null"),
    ({"args": "a\0b"}, ValueError, "null"),
    ({"args": ["true"], "executable": "a\0b"}, ValueError, "null"),
    ({"args": ["true"], "cwd": "a\0b"}, ValueError, "null"),
    ({"args": ["true"], "env": {"A=B": "1"}}, ValueError, "environment"),
    ({"args": ["true"], "env": {"A\0": "1"}}, ValueError, "null"),
    ({"args": ["true"], "env": {"A": "1\0"}}, ValueError, "null"),
    ({"args": ["true"], "env": {1: "1"}}, TypeError, None),
    ({"args": ["true"], "env": {"A": 1}}, TypeError, None),
    ({"args": ["true"], "env": {"A": None}}, TypeError, None),
    ({"args": None}, TypeError, None),
    ({"args": 5}, TypeError, None),
    ({"args": [5]}, TypeError, None),
    ({"args": ["true", None]}, TypeError, None),
    ({"args": ["true"], "executable": 5}, TypeError, None),
    ({"args": ["true"], "pass_fds": 5}, TypeError, None),
    ({"args": ["true"], "spawn_timeout": "1"}, TypeError, None),
    ({"args": ["true"], "spawn_timeout": float("nan")}, ValueError, "NaN"),
    ({"args": ["true"], "new": "uts", "hostname": "x" * 65}, ValueError, "64"),
]


@pytest.mark.parametrize("keywords, kind, words", WRONG, ids=lambda value: str(value)[:40])
@pytest.mark.parametrize("start", [nsext.spawn, nsext.Popen, nsext.run])
def test_before_any_clone(start, keywords, kind, words):
    before, keywords = state(), dict(keywords)
    args = keywords.pop("args")
    with pytest.raises(kind, match=words) as info:
        start(args, **keywords)
    assert not isinstance(info.value, OSError)
    assert not changes(before, state())
