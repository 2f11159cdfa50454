"""Build of the C core.  All else is declared in pyproject.toml."""

import os
import subprocess
import sys
import sysconfig
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# One wheel from 3.12 up (the stable ABI); one each for 3.11, whose own lacks the slots for
# subinterpreters, and for free-threaded builds, where it does not exist before 3.15.
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
ABI3 = sys.version_info >= (3, 12) and not FREE_THREADED

WARNINGS = [
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-Wconversion",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Wvla",
    "-fvisibility=hidden",
]

# What runs in the child must not call into libc, TLS or a sanitizer's runtime (csrc/child/child.h),
# whatever CFLAGS ask for.
CHILD_FLAGS = [
    "-ffreestanding",
    "-fno-builtin",
    "-fno-stack-protector",
    "-fno-sanitize=all",
    "-fno-exceptions",
    "-fno-lto",
    "-U_FORTIFY_SOURCE",
    "-O2",
]

# The helper needs its own start-up and system calls; elsewhere there is the inline body only.
HAS_HELPER = sysconfig.get_platform().endswith(
    ("x86_64", "aarch64")
) and "NSX_FORCE_GENERIC" not in os.environ.get("CFLAGS", "")

CHILD = sorted(glob("csrc/child/*.c"))
IN_HELPER = sorted(glob("csrc/helper/*.c"))
HEADERS = sorted([*glob("csrc/**/*.h", recursive=True), "csrc/steps.def"])
EXPORTS = "csrc/exports.map"  # the bounds of a section (__start_*) would be visible without


# The helper: the same sources as a static program without libc, at an address of its own.
HELPER_FLAGS = [
    *CHILD_FLAGS,
    "-DNSX_HELPER",
    "-Os",
    "-fno-pic",
    "-fno-pie",
    "-fno-asynchronous-unwind-tables",
    "-fno-unwind-tables",
    "-fcf-protection=none" if sysconfig.get_platform().endswith("x86_64") else "-fno-common",
]
HELPER_LINK = [
    "-nostdlib",
    "-static",
    "-no-pie",
    "-s",
    "-Wl,--build-id=none",
    "-Wl,-z,noexecstack",
    "-Wl,-z,noseparate-code",
    "-Wl,-Ttext-segment=0x5a000000",
]

# A compiler of its own for the helper, where CC builds no static program without a libc: zig's cc
# needs musl for that, and its linker has other words.
HELPER_CC = os.environ.get("NSX_HELPER_CC", "").split()
if HELPER_CC:
    HELPER_LINK[-2:] = ["-Wl,--image-base=0x5a000000"]


class BuildExt(build_ext):
    """Compiles the child's side apart, with flags of its own, and links the helper."""

    def build_helper(self, ext: Extension) -> None:
        """Build nsext/nsext-helper beside the extension."""
        usual = self.compiler.compiler_so
        if HELPER_CC:
            self.compiler.compiler_so = [*HELPER_CC, "-Wall"]
        objects = self.compiler.compile(
            ["csrc/plan.c", *CHILD, *IN_HELPER],
            output_dir=os.path.join(self.build_temp, "helper"),
            depends=ext.depends,
            debug=self.debug,
            extra_postargs=[*WARNINGS, *HELPER_FLAGS],
        )
        target = os.path.join(os.path.dirname(self.get_ext_fullpath(ext.name)), "nsext-helper")
        os.makedirs(os.path.dirname(target), exist_ok=True)
        # Not LDFLAGS, which may ask for what needs a libc.
        self.compiler.compiler_so = usual
        command = [*(HELPER_CC or self.compiler.linker_exe), *HELPER_LINK, *objects, "-o", target]
        subprocess.run(command, check=True)
        os.chmod(target, 0o755)

    def copy_extensions_to_source(self) -> None:
        super().copy_extensions_to_source()
        if not HAS_HELPER:
            return
        built = os.path.dirname(self.get_ext_fullpath("nsext._native"))
        # copy_file() makes a new file: the old one may be running.
        self.copy_file(os.path.join(self.build_lib, "nsext", "nsext-helper"), built)

    def get_outputs(self) -> list[str]:
        outputs = super().get_outputs()
        if not HAS_HELPER:
            return outputs
        return [*outputs, os.path.join(os.path.dirname(outputs[0]), "nsext-helper")]

    def build_extension(self, ext: Extension) -> None:
        if HAS_HELPER:
            self.build_helper(ext)
        # An interpreter with an rpath hands it on to its extensions, which need no libpython.
        self.compiler.linker_so = [
            word for word in self.compiler.linker_so if not word.startswith("-Wl,-rpath")
        ]
        ext.extra_objects = self.compiler.compile(
            CHILD,
            output_dir=self.build_temp,
            debug=self.debug,
            extra_postargs=[*WARNINGS, *CHILD_FLAGS],
        )
        super().build_extension(ext)


setup(
    ext_modules=[
        Extension(
            "nsext._native",
            sources=sorted(["csrc/plan.c", *glob("csrc/parent/*.c"), *glob("csrc/py/*.c")]),
            # setuptools compiles all or nothing, and looks at the times of these and the sources.
            depends=[*HEADERS, *CHILD, *IN_HELPER, EXPORTS, "setup.py"],
            define_macros=[("Py_LIMITED_API", "0x030c0000")] if ABI3 else [],
            extra_compile_args=["-O2", *WARNINGS],
            extra_link_args=["-Wl,-z,now", "-Wl,-z,noexecstack", f"-Wl,--version-script={EXPORTS}"],
            py_limited_api=ABI3,
        )
    ],
    # No entry point: what installers write for one may import re, a third of the command's start.
    scripts=["nsext/_cli/nsext"],
    cmdclass={"build_ext": BuildExt},
    options={"bdist_wheel": {"py_limited_api": "cp312"}} if ABI3 else {},
)
