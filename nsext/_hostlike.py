"""hostlike(): the running system's programs and libraries, for a root made from nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ._mounts import Bind, Dev, Dir, MountSpec, Symlink, Tmpfs

# Beside /usr, where a system is not merged into it these are directories of their own.
_TOP = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")

# What programs look up to find libraries, names, time and certificates; no secrets.
_ETC = (
    "alternatives",
    "bash.bashrc",
    "ca-certificates",
    "ca-certificates.conf",
    "group",
    "host.conf",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "login.defs",
    "mime.types",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "pki",
    "profile",
    "protocols",
    "resolv.conf",
    "services",
    "shells",
    "ssl",
    "terminfo",
    "timezone",
)


def _top() -> Iterator[MountSpec]:
    yield Bind("/usr")
    for name in _TOP:
        path = f"/{name}"
        try:
            yield Symlink(os.readlink(path), path)
        except FileNotFoundError:
            continue
        except OSError:  # it is no link
            yield Bind(path, optional=True)


def _etc() -> Iterator[MountSpec]:
    for name in _ETC:
        path = f"/etc/{name}"
        if os.path.islink(path) and not os.path.isabs(os.readlink(path)):
            # Its own kind of link, into what is bound: as it is.  Else the real file.
            real = os.path.realpath(path)
            if real.startswith("/usr/"):
                yield Symlink(os.readlink(path), path)
                continue
        yield Bind(os.path.realpath(path), path, optional=True)


def hostlike(*, etc: bool = True, tmp_size: int | str | None = None) -> tuple[MountSpec, ...]:
    """Return mount specs for ``root=Tmpfs()`` that make it look like the running system.

    /usr and what leads to it, and the essentials of /etc (etc=False: nothing of it), read-only;
    a /dev, /tmp, /var/tmp and /run of its own.  /proc comes by itself with new="pid mnt".

    tmp_size: of /tmp, and of /dev with its shm: bytes, or "64m"; None: half of the memory each.

    Looks at the running system when it is called.
    """
    return (
        *_top(),
        *(_etc() if etc else ()),
        Dev(size=tmp_size),
        Tmpfs("/tmp", size=tmp_size, mode=0o1777),
        Dir("/var/tmp", mode=0o1777),
        Dir("/run"),
        Dir("/root", mode=0o700),
        Dir("/home"),
    )
