"""Containers of podman's, made of this machine's own files: no image, no registry."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from helping import wait_for
from support import MUSL, needs

import nsext

# The package that runs inside: `make containertest` names the installed wheel.
PACKAGE = Path(os.environ.get("NSEXT_CONTAINER_PACKAGE") or Path(nsext.__file__).parent)
CONFIG = """
[engine]
cgroup_manager = "cgroupfs"
[containers]
default_ulimits = []
log_driver = "k8s-file"
"""


def profile_like_dockers(place):
    """An option: a seccomp profile with which clone3 is not there, nor any namespace to be had."""

    def refuse(number, *names, **more):
        return {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": number, **more}

    rules = [refuse(errno.ENOSYS, "clone3"), refuse(errno.EPERM, "unshare", "mount", "setns")]
    for flag in nsext.CloneFlags:
        test = {"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}
        rules.append(refuse(errno.EPERM, "clone", args=[test]))
    profile = place / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
    return f"--security-opt=seccomp={profile}"


def groups():
    """The cgroups that podman makes."""
    places = [*Path("/sys/fs/cgroup").glob("*/libpod_parent"), "/sys/fs/cgroup/libpod_parent"]
    return {Path(place) for parent in places for place, _, _ in os.walk(parent)}


def _removed(group):
    try:
        group.rmdir()
    except OSError as error:
        return error.errno == errno.ENOENT
    return True


class Podman:
    """Runs this machine's programs in containers, with the package in /opt."""

    def __init__(self):
        needs(shutil.which("podman") and shutil.which("runc"), "needs podman and runc")
        place = Path(tempfile.mkdtemp(prefix="podman"))  # podman refuses long names
        place.chmod(0o755)
        self.place, self.groups = place, groups()
        self.base = place / "root"
        names = ("usr", "etc", "proc", "sys", "dev", "tmp", "run", "var", "root")
        for name in (*names, "opt/nsext", "python"):
            (self.base / name).mkdir(parents=True)
        # Where podman mounts files of its own, which the root of a user namespace could not make.
        for name in ("etc/hosts", "etc/hostname", "etc/resolv.conf", "run/.containerenv"):
            (self.base / name).touch()
        for name in ("bin", "sbin", "lib", "lib64"):
            if os.path.islink(f"/{name}"):
                (self.base / name).symlink_to(os.readlink(f"/{name}").lstrip("/"))
        self.config = place / "containers.conf"
        self.config.write_text(CONFIG)
        self.volumes = ["-v", "/usr:/usr:ro", "-v", f"{PACKAGE}:/opt/nsext:ro"]
        # Its Python may lie below a directory that is not for everybody: so in a place of its own.
        self.python = os.path.realpath(sys.executable)
        if not sys.base_prefix.startswith("/usr"):
            self.python = "/python/" + os.path.relpath(self.python, sys.base_prefix)
            self.volumes += ["-v", f"{sys.base_prefix}:/python:ro"]
            if MUSL:  # by this name its loader is found
                (self.base / sys.base_prefix.lstrip("/")).mkdir(parents=True)
                self.volumes += ["-v", f"{sys.base_prefix}:{sys.base_prefix}:ro"]

    def run(self, options, code, *, first=True, deadline=100):
        """What Python code prints, in a container with these options of `podman run`.

        first: it is PID 1 there; else a shell is.
        """
        command = ["podman", f"--root={self.place}/store", f"--runroot={self.place}/run"]
        command += [f"--tmpdir={self.place}/tmp", "--storage-driver=vfs", "--runtime=runc"]
        command += ["run", "--rm", "--network=none", "--env=PYTHONPATH=/opt"]
        command += ["--env=LD_LIBRARY_PATH=/python/lib", *self.volumes, *options]
        command += ["--rootfs", str(self.base)]
        command += [] if first else ["/bin/sh", "-c", '"$@"; exit $?', "sh"]
        command += [self.python, "-Bc", code]
        env = {**os.environ, "CONTAINERS_CONF": str(self.config)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=deadline)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self):
        for group in sorted(groups() - self.groups, reverse=True):
            # Its conmon ends a little later.
            wait_for(lambda group=group: _removed(group), f"{group} is empty")
        shutil.rmtree(self.place)
