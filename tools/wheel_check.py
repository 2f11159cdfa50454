"""What must hold of a wheel: one exported symbol, no RUNPATH, the C library and nothing else.

And of its helper: a static program, executable.  Of an sdist: no helper in it.
"""

import io
import re
import sys
import tarfile
import zipfile

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

LIBC = re.compile(r"libc\.so\.6|libc\.musl-.*|libc\.so|ld-linux.*|ld-musl.*")


HELPER = "nsext/nsext-helper"


def check_helper(wheel):
    assert wheel.getinfo(HELPER).external_attr >> 16 & 0o111 == 0o111, "nsext-helper's mode"
    elf = ELFFile(io.BytesIO(wheel.read(HELPER)))
    kinds = {segment.header.p_type for segment in elf.iter_segments()}
    assert elf.header.e_type == "ET_EXEC", elf.header.e_type
    assert not kinds & {"PT_INTERP", "PT_DYNAMIC"}, kinds
    for segment in elf.iter_segments():
        flags = segment.header.p_flags  # PF_X 1, PF_W 2
        if segment.header.p_type in ("PT_LOAD", "PT_GNU_STACK"):
            assert flags & 3 != 3, f"{segment.header.p_type} may be written and executed"
    print(f"{HELPER}: static, {len(wheel.read(HELPER))} bytes")


def check_sdist(path):
    with tarfile.open(path) as sdist:
        names = [name.partition("/")[2] for name in sdist.getnames()]
    built = [name for name in names if name == HELPER or name.endswith(".so")]
    assert not built, built
    assert "csrc/helper/main.c" in names, "csrc/helper is missing"


def check(path):
    with zipfile.ZipFile(path) as wheel:
        check_helper(wheel)
        names = wheel.namelist()
        natives = [name for name in names if name.endswith(".so")]
        assert len(natives) == 1, natives
        for wanted in ("nsext/py.typed", "nsext/_native.pyi", "nsext/__init__.py"):
            assert wanted in names, f"{wanted} is missing"
        assert not [name for name in names if name.endswith((".c", ".h"))], "sources in the wheel"
        elf = ELFFile(io.BytesIO(wheel.read(natives[0])))

    dynamic = elf.get_section_by_name(".dynamic")
    assert isinstance(dynamic, DynamicSection)
    tags = list(dynamic.iter_tags())
    paths = [tag for tag in tags if tag.entry.d_tag in ("DT_RPATH", "DT_RUNPATH")]
    assert not paths, f"an rpath: {paths}"
    needed = [tag.needed for tag in tags if tag.entry.d_tag == "DT_NEEDED"]
    assert all(LIBC.fullmatch(name) for name in needed), needed

    symbols = elf.get_section_by_name(".dynsym").iter_symbols()
    exported = {
        symbol.name
        for symbol in symbols
        if symbol.entry.st_shndx != "SHN_UNDEF" and symbol.entry.st_info.bind != "STB_LOCAL"
    }
    assert exported == {"PyInit__native"}, exported
    print(f"{path}: exports PyInit__native, needs {' '.join(needed)}")


for argument in sys.argv[1:]:
    (check_sdist if argument.endswith(".tar.gz") else check)(argument)
