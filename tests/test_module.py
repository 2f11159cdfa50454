"""The package and its C core as modules: names, re-import, subinterpreters, dependencies."""

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support import native_spawn, script

import nsext
from nsext import _native

PACKAGE = Path(nsext.__file__).parent


def test_all_is_sorted_and_complete():
    assert nsext.__all__ == sorted(nsext.__all__)
    assert len(set(nsext.__all__)) == len(nsext.__all__)
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    public = {name for name in vars(nsext) if not name.startswith("_")} - modules
    assert public | {"__version__"} == set(nsext.__all__)
    for name in nsext.__all__:
        assert getattr(nsext, name) is not None


def test_all_has_what_the_core_promises():
    names = {"Popen", "Process", "Sandbox", "CloneFlags", "SpawnError", "SpawnTimeout"}
    names |= {"UnsupportedError", "spawn", "clone", "run", "unshare", "setns", "pidfd_open"}
    assert names | set(subprocess.__all__) | {"__version__"} <= set(nsext.__all__)


def test_modules_are_private():
    for path in PACKAGE.glob("*.py"):
        assert path.stem.startswith("_"), path


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", nsext.__version__)


def test_everything_public_has_a_docstring():
    for name in nsext.__all__:
        value = getattr(nsext, name)
        if getattr(value, "__module__", "").startswith("nsext"):
            assert value.__doc__, name


def test_no_dependency_beyond_the_standard_library():
    """In an interpreter without site-packages; ctypes and cffi are not needed either."""
    code = f"""if True:
    import sys
    sys.path.insert(0, {str(PACKAGE.parent)!r})
    for name in ("cffi", "_cffi_backend", "ctypes", "_ctypes", "pytest"):
        sys.modules[name] = None
    import nsext
    assert nsext.run(["true"], nice=1).returncode == 0
    roots = {{name.partition(".")[0] for name, module in sys.modules.items() if module}}
    print(sorted(roots - sys.stdlib_module_names - {{"nsext", "__main__"}}))
    """
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done


def test_import_has_no_effects():
    """A library never prints, starts threads, catches signals or opens descriptors."""
    code = f"""if True:
    import sys, os
    sys.path.insert(0, {str(PACKAGE.parent)!r})
    import subprocess, enum, dataclasses, threading, signal, typing, resource, math, struct
    # Not SigQ, which counts all of the user's processes.
    names = ("SigBlk", "SigIgn", "SigCgt", "Umask", "Threads", "Cap")
    def facts():
        status = open("/proc/self/status").read().splitlines()
        kept = [line for line in status if line.startswith(names)]
        return kept, sorted(os.listdir("/proc/self/fd")), os.getcwd(), dict(os.environ)
    before = facts()
    import nsext
    assert facts() == before
    """
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_reimport():
    """Multi-phase initialisation: each import is a module with a state of its own."""

    def load():
        spec = importlib.util.spec_from_file_location("nsext._native", _native.__file__)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    one, other = load(), load()
    assert one is not other and one is not _native
    assert one.STEPS == other.STEPS == _native.STEPS and one.STEPS is not other.STEPS
    assert one.CHILD_TEXT == _native.CHILD_TEXT
    blob = one.pack(0, (("fds",), ("default_signals", 0), ("exec",)), None, None)
    for module in (one, other, _native):
        child, failed = native_spawn(module, blob, None)
        assert failed is None
        assert module.wait(child._pidfd, None, child) == 0
        os.close(child._pidfd)
        assert child.pid > 0


def test_reimport_of_the_package():
    script("""
    for _ in range(3):
        for name in [name for name in sys.modules if name.partition(".")[0] == "nsext"]:
            del sys.modules[name]
        import nsext
        assert nsext.run(["true"]).returncode == 0
    import gc
    gc.collect()
    assert nsext.run(["true"]).returncode == 0
    """)


def test_core_has_functions_and_constants_only():
    for name, value in vars(_native).items():
        assert not isinstance(value, type), name


INTERPRETERS = """
try:
    import _interpreters
    def make():
        return _interpreters.create("isolated")
    def run(number, code):
        error = _interpreters.run_string(number, code)
        assert error is None, error
except ImportError:
    import _xxsubinterpreters as _interpreters
    def make():
        return _interpreters.create(isolated=True)
    def run(number, code):
        _interpreters.run_string(number, code)
"""


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs Python 3.12")
def test_subinterpreters_with_their_own_gil():
    shown = script(
        INTERPRETERS
        + """
code = '''if True:
    import sys
    sys.path[:] = {path!r}
    import nsext
    for _ in range(20):
        assert nsext.spawn(["true"]).wait() == 0
        assert nsext.check_output(["echo", "x"]) == b"x\\\\n"
    try:
        nsext.spawn(["/no/such"])
    except FileNotFoundError as error:
        assert error.stage == "exec"
'''.format(path=sys.path)
numbers = [make() for _ in range(4)]
errors = []
def body(number):
    try:
        run(number, code)
    except BaseException as error:
        errors.append(repr(error))
if sys.version_info < (3, 13):
    # There, an import in an interpreter that another thread runs may hang, subprocess's too.
    for number in numbers:
        body(number)
else:
    threads = [threading.Thread(target=body, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
for number in numbers:
    _interpreters.destroy(number)
assert not errors, errors
assert nsext.run(["true"]).returncode == 0
print(json.dumps(len(open_fds())))
"""
    )
    assert json.loads(shown) < 10


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL")
def test_free_threading_is_declared():
    """The import of a module that does not say so turns the GIL on, and warns."""
    code = "import sys, nsext; nsext.run(['true']); print(sys._is_gil_enabled())"
    variables = {name: value for name, value in os.environ.items() if name != "PYTHON_GIL"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], env=variables, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")
    assert not sys._is_gil_enabled()  # nor has anything of these tests


def test_stubs_and_marker_are_in_the_package():
    assert (PACKAGE / "py.typed").exists()


def test_arguments_of_popen_are_subprocess():
    """Popen's own arguments are subprocess's, in their order."""
    theirs = inspect.signature(subprocess.Popen.__init__).parameters
    ours = inspect.signature(nsext.Popen.__init__).parameters
    positional = [name for name, item in theirs.items() if item.kind is item.POSITIONAL_OR_KEYWORD]
    assert list(ours)[: len(positional)] == positional
    missing = {name for name in theirs if name not in ours} - {"process_group"}
    assert not missing


def test_spawn_says_what_it_takes():
    """Its short way is not what help() and inspect see."""
    parameters = inspect.signature(nsext.spawn).parameters
    assert list(parameters)[:3] == ["args", "sandbox", "stdin"] and "fields" in parameters
    assert nsext.spawn.__doc__.startswith("Start a program")
    box = nsext.Sandbox(umask=0o77)
    for _ in range(2):  # the second one goes the short way
        with pytest.raises(TypeError, match="no_such_field"):
            nsext.spawn(["true"], sandbox=box, no_such_field=1)
        with pytest.raises(FileNotFoundError) as caught:
            nsext.spawn(["/nonexistent"], sandbox=box)
        assert (caught.value.stage, caught.value.filename) == ("exec", "/nonexistent")
        assert nsext.spawn(["true"], sandbox=box).wait() == 0
