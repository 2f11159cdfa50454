"""What must hold of a wheel: one exported symbol, no RUNPATH, the C library and nothing else."""

import io
import re
import sys
import zipfile

from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

LIBC = re.compile(r"libc\.so\.6|libc\.musl-.*|libc\.so|ld-linux.*|ld-musl.*")


def check(path):
    with zipfile.ZipFile(path) as wheel:
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
    check(argument)
