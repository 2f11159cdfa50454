"""The rules of the child's side, held against its objects: trap 6.

The child shares the parent's memory and its thread's TLS: a call into the C library, or one access
to thread-local storage, would be a data race with a thread that goes on running.
"""

import ast
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support import needs

from nsext import _native

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
CHILD = sorted((CSRC / "child").glob("*.c"))
SECTION = "nsx_child"


def flags(name):
    """A list of flags as setup.py has it."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise AssertionError(name)


def tool(*command):
    needs(shutil.which(command[0]), f"needs {command[0]}")
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """The child's objects, by the flags of the build; and by those of a hardened one."""
    made = []
    for number, more in enumerate(
        [["-fPIC"], ["-fPIC", "-O0"], ["-fPIC", "-O3", "-D_FORTIFY_SOURCE=3"]]
    ):
        place = tmp_path_factory.mktemp(f"objects{number}")
        first = ["-fstack-protector-all", "-g", *more]
        for source in CHILD:
            target = place / f"{source.stem}.o"
            command = ["cc", *first, *flags("WARNINGS"), *flags("CHILD_FLAGS")]
            if "-O0" in more:
                command.append("-O0")
            tool(*command, "-Werror", "-c", str(source), "-o", str(target))
            made.append(target)
    return made


def test_there_are_sources():
    assert len(CHILD) >= 5


def test_undefined_symbols_are_our_own(objects):
    """Nothing of the C library, no __stack_chk_fail, no sanitizer: nsx_child_* and step_* only."""
    for target in objects:
        lines = tool("nm", "-u", str(target)).split("\n")
        undefined = {line.split()[-1] for line in lines if line.strip()}
        undefined -= {"_GLOBAL_OFFSET_TABLE_"}
        wrong = {name for name in undefined if not re.fullmatch(r"nsx_child_\w+|step_\w+", name)}
        assert not wrong, (target.name, wrong)


def test_no_thread_local_storage(objects):
    mark = {"x86_64": r"%fs:", "aarch64": r"tpidr_el0"}.get(platform.machine())
    needs(mark, "no mark of TLS is known for this architecture")
    for target in objects:
        assert not re.search(mark, tool("objdump", "-d", str(target))), target


def test_no_indirect_calls(objects):
    """But for the entry of clone(entry), which is the caller's: step_call."""
    needs(platform.machine() == "x86_64", "reads x86_64 only")
    for target in objects:
        for part in tool("objdump", "-d", "--no-show-raw-insn", str(target)).split("\n\n"):
            if re.search(r"\bcall\s+\*", part):
                assert "<step_call>:" in part or "<nsx_child_main>:" in part, part[:200]


def test_all_code_is_in_the_section(objects):
    """So that a filter on the instruction pointer sees every system call of a child."""
    for target in objects:
        headers = tool("objdump", "-h", "-w", str(target)).splitlines()
        for line in headers:
            fields = line.split()
            if len(fields) > 6 and "CODE" in line and int(fields[2], 16):
                assert fields[1] == SECTION, (target.name, line)


def test_nothing_mutable_is_static(objects):
    for target in objects:
        for line in tool("objdump", "-h", "-w", str(target)).splitlines():
            fields = line.split()
            if len(fields) > 3 and re.match(r"\.(data|bss|tdata|tbss)", fields[1]):
                mutable = not fields[1].startswith(".data.rel.ro")
                assert not (mutable and int(fields[2], 16)), (target.name, line)


def test_section_is_in_the_extension():
    start, stop = _native.CHILD_TEXT
    assert 500 < stop - start < 64 << 10
    maps = Path("/proc/self/maps").read_text().splitlines()
    (line,) = (line for line in maps if in_span(line, start))
    assert "r-x" in line and "_native" in line and in_span(line, stop - 1)


def in_span(line, address):
    low, high = (int(part, 16) for part in line.split()[0].split("-"))
    return low <= address < high


def test_extension_exports_one_symbol():
    lines = tool("nm", "-D", "--defined-only", _native.__file__).splitlines()
    assert [line.split()[-1] for line in lines] == ["PyInit__native"]


def test_extension_has_no_executable_stack_and_no_lazy_binding():
    shown = tool("readelf", "-lWd", _native.__file__)
    assert re.search(r"GNU_STACK.* RW ", shown)
    assert "NOW" in shown
    assert not re.search(r"LOAD.* RWE ", shown)


# ---- who includes what


def includes(path):
    return set(re.findall(r'#\s*include\s+[<"](\S+)[>"]', path.read_text()))


def reached(path, seen=None):
    """All that a file includes, through our own headers."""
    seen = set() if seen is None else seen
    for name in includes(path):
        if name not in seen:
            seen.add(name)
            if (path.parent / name).exists():
                reached((path.parent / name).resolve(), seen)
    return seen


def test_only_the_boundary_sees_python():
    for path in CSRC.rglob("*.[ch]"):
        if "Python.h" in reached(path):
            assert path.parent == CSRC / "py", path


def test_child_files_include_no_library():
    """Freestanding headers and the kernel's only; errno.h would be a promise that nobody keeps."""
    allowed = {"stddef.h", "stdint.h", "asm/unistd.h", "limits.h"}
    for path in [*CHILD, *(CSRC / "child").glob("*.h")]:
        outside = {name for name in reached(path) if "/" not in name or name.startswith("asm")}
        ours = {item.name for item in CSRC.rglob("*.[ch]")} | {"steps.def"}
        wrong = outside - allowed - ours
        assert wrong <= {"errno.h", "unistd.h"}, (path, wrong)
        assert not includes(path) & {"errno.h", "unistd.h", "stdio.h", "stdlib.h", "string.h"}


def test_only_the_generic_architecture_includes_the_library():
    """The two that the test above lets through come by csrc/arch/generic.h alone."""
    for path in CSRC.rglob("*.h"):
        if path.parent.name in ("child", "arch") or path.parent == CSRC:
            found = includes(path) & {"errno.h", "unistd.h", "stdio.h", "stdlib.h", "string.h"}
            assert not found or path.name == "generic.h", path


def test_names_of_steps():
    """step_<name>() for every row of steps.def, and no other."""
    rows = re.findall(r"^(HELPER_)?STEP\((\w+),", (CSRC / "steps.def").read_text(), re.MULTILINE)
    assert [name for _, name in rows] == list(_native.STEPS)
    assert {name for helper, name in rows if helper} == _native.HELPER_STEPS
    for paths, names in (
        (CHILD, set(_native.STEPS) - _native.HELPER_STEPS),
        (sorted((CSRC / "helper").glob("*.c")), _native.HELPER_STEPS),
    ):
        text = "".join(path.read_text() for path in paths)
        functions = re.findall(r"^NSX_CHILD_CODE long step_(\w+)\(", text, re.MULTILINE)
        assert sorted(functions) == sorted(names)


def test_every_function_of_the_child_is_marked():
    for path in CHILD:
        for line in re.findall(
            r"^(?!NSX_CHILD_CODE)(?:static )?\w[\w *]+\([^;]*\)\n\{", path.read_text(), re.M
        ):
            raise AssertionError(f"{path.name}: {line}")
