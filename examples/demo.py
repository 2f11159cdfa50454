"""The main job: a program in new pid, uts, ipc and mnt namespaces.  Run by `make demo`.

As root, or with CAP_SYS_ADMIN, these four are enough; an ordinary user needs a new user namespace
around them, in which it is root.
"""

import os
import platform
import shutil
import sys

import nsext

HOSTNAME = "nsext-demo"
KINDS = ["pid", "uts", "ipc", "mnt"]

# procps may be missing: then the shell lists /proc itself.
PS = "ps -e -o pid,ppid,args"
LIST_PROC = """
echo "  PID COMMAND"
for dir in /proc/[0-9]*; do echo "    ${dir#/proc/} $(tr '\\0\\n' '  ' <$dir/cmdline)"; done
"""
SCRIPT = """
echo "hostname: $(uname -n)"
echo "id:       uid $(id -u), gid $(id -g)"
echo
{ps}
echo
for kind in {kinds}; do echo "$kind $(readlink /proc/self/ns/$kind)"; done
"""


def may_make_namespaces():
    """CAP_SYS_ADMIN, in the effective set."""
    with open("/proc/self/status") as status:
        effective = next(line for line in status if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> 21 & 1)


def main():
    kinds = KINDS if may_make_namespaces() else ["user", *KINDS]
    here = {kind: os.readlink(f"/proc/self/ns/{kind}") for kind in kinds}
    new = " ".join(kinds)

    print(
        f"nsext {nsext.__version__}, Python {platform.python_version()}, Linux {os.uname().release}"
    )
    print(
        f"here: hostname {os.uname().nodename}, uid {os.geteuid()}, this process is {os.getpid()}"
    )
    print()
    print(f'>>> nsext.run(["sh"], input=script, new="{new}", hostname="{HOSTNAME}")')
    script = SCRIPT.format(ps=PS if shutil.which("ps") else LIST_PROC, kinds=new)
    try:
        done = nsext.run(
            ["sh"],
            input=script,
            new=new,
            hostname=HOSTNAME,
            stdout=nsext.PIPE,
            text=True,
            timeout=60,
            check=True,
        )
    except nsext.SpawnError as error:
        sys.exit(f"this system does not let us: {error}")

    shown, _, ids = done.stdout.rpartition("\n\n")
    print(shown)
    print()
    print(f"{'namespace':<12}{'here':<24}inside")
    inside = dict(line.split() for line in ids.splitlines())
    for kind in kinds:
        print(f"{kind:<12}{here[kind]:<24}{inside[kind]}")

    assert f"hostname: {HOSTNAME}\n" in done.stdout
    assert all(here[kind] != inside[kind] for kind in kinds), "a namespace is not new"
    assert any(line.split()[:1] == ["1"] for line in shown.splitlines()), "no PID 1"
    assert os.uname().nodename != HOSTNAME
    print()
    print("All of them are new, and PID 1 is the program; nothing has changed here.")


if __name__ == "__main__":
    main()
