"""Constants that are written out in csrc/ and nsext/, against the headers of this machine.

csrc/ writes them out so that the age of the build machine's headers does not matter; a compiler
compares each with the header here, where that knows it.
"""

import os
import re
import resource
import signal
import subprocess
from pathlib import Path

import pytest
from support import compiled, needs

import nsext
from nsext import _compile, _flags, _nsfs, _values

CSRC = Path(__file__).parent.parent / "csrc"

HEADERS = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <linux/capability.h>
#include <linux/ioprio.h>
#include <linux/keyctl.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <linux/openat2.h>
#include <sys/signalfd.h>
#include <linux/magic.h>
#include <linux/prctl.h>
#include <linux/securebits.h>
#include <asm/ioctls.h>
#include <stddef.h>
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <poll.h>
#ifndef __GLIBC__
#include <linux/mount.h>
#define dirent64 dirent
#endif
"""

# What csrc/ calls NSX_NAME is NAME in the headers, but for these.
EXCEPT = {
    "NSX_CLONE_NEW_ALL": None,  # of ours
    "NSX_SIGSET_BYTES": "(_NSIG - 1) / 8",
    "NSX_NSIG": "_NSIG - 1",
    "NSX_PIDFD_INFO_EXIT": "PIDFD_INFO_EXIT",
    "NSX_FUTEX_TID_MASK": "FUTEX_TID_MASK",
}

# Constants of the child's files, which may not include the C library's headers: NAME_ is NAME
# there, but for these; None: ours.
SPECIAL = {
    "ACCESS_NET": None,  # newer than most headers: test_landlock.py has what they do
    "ACCESS_OF_FILES": None,
    "ACCESS_REFER": "LANDLOCK_ACCESS_FS_REFER",
    "ACCESS_TRUNCATE": None,
    "ACCESS_V1": "((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1)",
    "ALL_CHILDREN": "__WALL",
    "CAPABILITY_VERSION_3": "_LINUX_CAPABILITY_VERSION_3",
    "CORE_FLAG": "WCOREFLAG",
    "FAILED": None,
    "KEEP": None,
    "LAST_FD": "~0U",
    "O_RDWR_NOCTTY_CLOEXEC": "(O_RDWR | O_NOCTTY | O_CLOEXEC)",
    "MS_NOSUID_NODEV_NOEXEC": "(MS_NOSUID | MS_NODEV | MS_NOEXEC)",
    "NO_ID": "~0U",
    "OVERFLOW_ID_": None,
    "OVERFLOW_ID": None,
    "O_PATH_CLOEXEC": "(O_PATH | O_CLOEXEC)",
    "PROT_READ_WRITE": "(PROT_READ | PROT_WRITE)",
    "SECBIT_NOROOT_": "SECBIT_NOROOT",
    "SET_IDS": "(S_ISUID | S_ISGID)",
    "SFD_CLOEXEC_NONBLOCK": "(SFD_CLOEXEC | SFD_NONBLOCK)",
    "SOCK_DGRAM_CLOEXEC": "(SOCK_DGRAM | SOCK_CLOEXEC)",
}
SPECIAL |= {"COUNT": None, "ROOT": "(O_PATH | O_DIRECTORY | O_CLOEXEC)"}
SPECIAL |= {
    "KEEP": None,  # of sections
    "DIRECTORY": "(O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)",
    "KEPT_ST_FLAGS": "(MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)",
    "AS_FILE": "(O_PATH | O_NOFOLLOW | O_CLOEXEC)",
    "NONBLOCK_": "O_NONBLOCK",
    "WRITE_NEW": "(O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC)",
}
SPECIAL |= dict.fromkeys(
    ["MAX_BELOW", "MAX_DEPTH", "MAX_LINKS", "MAX_PATH", "MAX_RACES", "MAX_SCRIPTS"]
)
SPECIAL |= dict.fromkeys(["PATH_SIZE", "SOURCE_MISSING"])
CHILD = sorted([*(CSRC / "child").glob("*.c"), *(CSRC / "helper").glob("*.c")])
CHILD.append(CSRC / "helper" / "fs.h")
# csrc/sys_mount.h: likewise.
MOUNT = {
    "NSX_OPEN_TREE_CLOEXEC": "O_CLOEXEC",
    "NSX_STATX_BASIC": "STATX_BASIC_STATS",
    "NSX_SYS_MOUNT_H": None,
}


def defines(path, pattern):
    """{name: text} of the #defines of a file that match."""
    text = path.read_text().replace("\\\n", " ")
    found = re.findall(rf"^#\s*define ({pattern}) +(.+?)(?:\s*/\*.*)?$", text, re.MULTILINE)
    return {name: value.strip() for name, value in found}


def abi():
    names = defines(CSRC / "abi.h", r"NSX_\w+")
    return {name: EXCEPT.get(name, name.removeprefix("NSX_")) for name in names}


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    """{what: (ours, the header's or None)}, by one compilation."""
    ours = {f"abi.h {name}": (name, theirs) for name, theirs in abi().items() if theirs}
    for name in defines(CSRC / "sys.h", r"NSX_(?:AT|O)_\w+"):
        ours[f"sys.h {name}"] = (name, name.removeprefix("NSX_"))
    for name in defines(CSRC / "sys_mount.h", r"NSX_\w+"):
        if theirs := MOUNT.get(name, name.removeprefix("NSX_")):
            ours[f"sys_mount.h {name}"] = (name, theirs)
    for file in CHILD:
        for name, text in defines(file, r"\w+").items():
            theirs = SPECIAL.get(name, name.removesuffix("_"))
            if theirs:
                ours[f"{file.name} {name}"] = (f"({text})", theirs)
    for name, flag in nsext.CloneFlags.__members__.items():
        ours[f"CloneFlags.{name}"] = (f"{int(flag)}ull", f"CLONE_{name}")
    for name in ("MS_SHARED", "MS_SLAVE", "MS_PRIVATE"):
        ours[f"_compile.{name}"] = (f"{getattr(_compile, name)}ull", name)
    for name in ("SIGPIPE", "SIGXFSZ"):
        ours[f"_compile.{name}"] = (f"{getattr(_compile, name)}", name)
    source = [
        HEADERS,
        f'#include "{CSRC / "sys_mount.h"}"',
        f'#include "{CSRC / "plan.h"}"',
        f'#include "{CSRC / "helper" / "fs.h"}"',
        "struct pair { long long a, b; int known; };",
    ]
    source.append("struct pair pairs[] = {")
    for one, other in ours.values():
        plain = re.fullmatch(r"[A-Z]\w*", other)
        if plain:
            source += [f"#if defined {other} || defined NSX_ENUM_{other}"]
        source.append(f"{{(long long)({one}), (long long)({other}), 1}},")
        if plain:
            source += ["#else", f"{{(long long)({one}), 0, 0}},", "#endif"]
    source.append("};")
    cdef = "struct pair { long long a, b; int known; };"
    cdef += f"extern struct pair pairs[{len(ours)}];"
    # These are enumerators in some C libraries, so that no #if sees them.
    enums = ["MS_SHARED", "MS_SLAVE", "MS_PRIVATE", "MS_REC", "P_PIDFD", "P_ALL"]
    enums += ["IOPRIO_WHO_PROCESS", "CLD_EXITED", "CLD_DUMPED", "CLD_STOPPED", "SI_KERNEL"]
    enums += ["LANDLOCK_RULE_PATH_BENEATH"]
    enums += ["FSCONFIG_SET_FLAG", "FSCONFIG_SET_STRING", "FSCONFIG_CMD_CREATE"]
    macros = [(f"NSX_ENUM_{name}", "1") for name in enums]
    place = tmp_path_factory.mktemp("constants")
    lib = compiled(place, "_nsext_constants", cdef, "\n".join(source), define_macros=macros)[1]
    pairs = lib.pairs
    return {
        name: (pairs[n].a, pairs[n].b if pairs[n].known else None) for n, name in enumerate(ours)
    }


def test_all_that_the_headers_know(values):
    wrong = {name: pair for name, pair in values.items() if pair[1] not in (None, pair[0])}
    assert not wrong


def test_the_headers_know_nearly_all(values):
    """Else this file would compare nothing, and say that all is well."""
    unknown = {name for name, pair in values.items() if pair[1] is None}
    newer = {"steps_landlock.c LANDLOCK_RULE_NET_PORT_"}  # Linux 6.7
    newer |= {"abi.h NSX_PIDFD_INFO_EXIT", "abi.h NSX_PIDFD_GET_INFO"}  # Linux 6.13, 6.15
    needs(len(unknown - newer) <= 4, f"the headers of this machine are too old: {unknown}")


def test_every_constant_of_the_child_is_compared():
    for path in CHILD:
        for name in defines(path, r"\w+"):
            assert name in SPECIAL or name.endswith("_"), f"{path.name}: {name}"


def test_system_call_numbers():
    """Those since Linux 5.1 are written out; they are the same on every architecture."""
    text = (CSRC / "abi.h").read_text() + (CSRC / "sys_mount.h").read_text()
    found = dict(re.findall(r"#define __NR_(\w+) (\d+)", text))
    assert found == {
        "pidfd_send_signal": "424",
        "pidfd_open": "434",
        "clone3": "435",
        "close_range": "436",
        "landlock_create_ruleset": "444",
        "landlock_add_rule": "445",
        "landlock_restrict_self": "446",
        "listns": "470",
        "open_tree": "428",
        "move_mount": "429",
        "fsopen": "430",
        "fsconfig": "431",
        "fsmount": "432",
        "openat2": "437",
        "mount_setattr": "442",
    }
    lines = [f"#ifdef SYS_{n}\nCHECK({n} {v} SYS_{n})\n#endif" for n, v in found.items()]
    source = HEADERS + "\n".join(lines) + "\n"
    shown = subprocess.run(["cc", "-E", "-P", "-"], input=source, capture_output=True, text=True)
    checks = re.findall(r"CHECK\((\w+) (\d+) (\d+)\)", shown.stdout)
    assert checks and all(ours == theirs for _, ours, theirs in checks)


def test_structures(tmp_path):
    """Layouts that the child's files spell out, against the headers'."""
    source = f"""{HEADERS}
    #include "{CSRC}/sys_mount.h"
    #define SAME(a, x, b, y) _Static_assert(offsetof(a, x) == offsetof(b, y), #x)
    struct linux_dirent64 {{
        uint64_t inode; int64_t off; uint16_t size; uint8_t type; char name[];
    }};
    SAME(struct linux_dirent64, size, struct dirent64, d_reclen);
    SAME(struct linux_dirent64, name, struct dirent64, d_name);
    struct interface_flags {{ char name[16]; int16_t flags; char rest[22]; }};
    _Static_assert(sizeof(struct interface_flags) == sizeof(struct ifreq), "ifreq");
    SAME(struct interface_flags, flags, struct ifreq, ifr_flags);
    _Static_assert(sizeof(struct pollfd) == 8 && offsetof(struct pollfd, events) == 4, "pollfd");
    _Static_assert(POLLIN == 1, "POLLIN");
    _Static_assert(sizeof(struct nsx_statx) == sizeof(struct statx), "statx");
    SAME(struct nsx_statx, attributes, struct statx, stx_attributes);
    SAME(struct nsx_statx, mode, struct statx, stx_mode);
    SAME(struct nsx_statx, inode, struct statx, stx_ino);
    SAME(struct nsx_statx, dev_major, struct statx, stx_dev_major);
    SAME(struct nsx_statx, dev_minor, struct statx, stx_dev_minor);
    #ifdef STATX_MNT_ID
    SAME(struct nsx_statx, mount_id, struct statx, stx_mnt_id);
    #endif
    SAME(struct nsx_open_how, resolve, struct open_how, resolve);
    #ifdef MOUNT_ATTR_SIZE_VER0
    SAME(struct nsx_mount_attr, userns_fd, struct mount_attr, userns_fd);
    #endif
    #ifdef CLONE_ARGS_SIZE_VER2
    _Static_assert(sizeof(struct nsx_clone_args) == CLONE_ARGS_SIZE_VER2, "clone_args");
    SAME(struct nsx_clone_args, exit_signal, struct clone_args, exit_signal);
    SAME(struct nsx_clone_args, stack_size, struct clone_args, stack_size);
    SAME(struct nsx_clone_args, cgroup, struct clone_args, cgroup);
    #endif
    """
    file = tmp_path / "structures.c"
    file.write_text(source)
    command = ["cc", "-std=gnu11", "-fsyntax-only", str(file)]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr


def test_spelt_out_structures_are_those_of_the_child():
    for file, name, fields in [
        ("steps_ns.c", "interface_flags", ["char name[16]", "int16_t flags", "char rest[22]"]),
        ("steps_fds.c", "entry", ["uint64_t inode", "int64_t offset", "uint16_t size"]),
    ]:
        text = (CSRC / "child" / file).read_text()
        body = re.search(rf"struct {name} {{(.*?)}};", text, re.DOTALL)[1]
        assert [line.strip() for line in body.split(";")][: len(fields)] == fields


def test_limits_of_python():
    assert _values.MAX_NAME == 64
    assert _values.INFINITY == 2**64 - 1
    assert resource.RLIM_INFINITY in (-1, _values.INFINITY)  # from Python 3.15 on it is positive
    assert (_compile.SIGPIPE, _compile.SIGXFSZ) == (signal.SIGPIPE, signal.SIGXFSZ)
    assert int(_flags.ALL) == sum(map(int, nsext.CloneFlags))


def test_clone_flags_are_those_of_os():
    for name, flag in nsext.CloneFlags.__members__.items():
        assert getattr(os, f"CLONE_{name}", int(flag)) == int(flag)


def test_requests_of_namespaces(tmp_path):
    """ioctl_ns(2) and ioctl_pidfd(2), of which the headers here may know only some."""
    types = {5: "unsigned long long", 6: "int", 8: "int", 13: "unsigned long long"}
    requests = {name: value for name, value in vars(_nsfs).items() if name.startswith("NS_GET_")}
    lines = ["#include <linux/ioctl.h>", "#include <linux/nsfs.h>"]
    for name, value in requests.items():
        number = value & 0xFF
        macro = (
            f"_IOR(0xb7, {number}, {types[number]})" if number in types else f"_IO(0xb7, {number})"
        )
        lines.append(f'_Static_assert({value}u == {macro}, "{name}");')
        lines.append(f'#ifdef {name}\n_Static_assert({value}u == {name}, "header");\n#endif')
    for kind, value in _nsfs._PIDFD_GET_NAMESPACE.items():
        lines.append(f'_Static_assert({value}u == _IO(0xff, {value & 0xFF}), "{kind}");')
    file = tmp_path / "requests.c"
    file.write_text("\n".join(lines) + "\n")
    command = ["cc", "-std=gnu11", "-fsyntax-only", str(file)]
    shown = subprocess.run(command, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert set(_nsfs._PIDFD_GET_NAMESPACE) == set(_flags.BY_KIND)
