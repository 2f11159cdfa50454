"""Writes a corpus for the plan's fuzzer: blobs of all kinds of descriptions, and plans with them.

python tests/fuzz/seeds.py DIRECTORY
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from support import compiled

import nsext
from nsext import _native
from nsext._compile import body_of, compile

RANGES = [(0, 1000, 10), (10, 5000, 1)]
BOXES = [
    nsext.Sandbox(),
    nsext.Sandbox(new="all", hostname="seed", time_offsets={"boottime": 5}, rlimits={"core": 0}),
    nsext.Sandbox(new="user", uid_map=RANGES, gid_map=RANGES, user=0, extra_groups=[1, 2]),
    nsext.Sandbox(new="user pid", uid_map="auto", disable_userns=True, exec_label="profile"),
    nsext.Sandbox(new="user", uid_map=RANGES, gid_map="auto", disable_userns=True),
    nsext.Sandbox(new="pid mnt", init=True, kill_on_parent_exit=True, affinity=[0], umask=0),
    nsext.Sandbox(new="pid mnt", root=nsext.Tmpfs(), mounts=nsext.hostlike(), cwd="/tmp"),
    nsext.Sandbox(new="mnt", mounts=[nsext.File("/tmp/x", b"content"), nsext.Mask("/root")]),
]


SOURCE = """
#include "%s/plan.h"

/* A helper has made pointers of these offsets. */
static size_t back(char *bytes, uint64_t base)
{
    struct nsx_plan *plan = (struct nsx_plan *)(void *)bytes;
    const uint32_t arrays[][2] = {
        {plan->argv, plan->argc}, {plan->envp, plan->envc}, {plan->execs, plan->nexecs}};
    for (int i = 0; i < 3; i++) {
        uintptr_t *entry = (uintptr_t *)(void *)(bytes + arrays[i][0]);
        for (uint32_t j = 0; j < arrays[i][1]; j++)
            entry[j] -= base;
    }
    return plan->size;
}
"""


def plans(place: Path) -> list[bytes]:
    """Those of children that wait: their memfds are open here."""
    csrc = Path(__file__).resolve().parent.parent.parent / "csrc"
    cdef = "size_t back(char *bytes, uint64_t base);"
    ffi, lib = compiled(place, "_nsext_seeds", cdef, SOURCE % csrc)
    found = []
    for box in BOXES:
        try:
            process = nsext.Popen(["true", "argument"], sandbox=box, paused=True, env={"A": "1"})
        except nsext.SpawnError:
            continue  # what this machine cannot do has no plan
        with process:
            maps = Path(f"/proc/{process.pid}/map_files")
            lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
            line = next(line for line in lines if "memfd:nsext-plan" in line)
            area = line.split()[0]
            bytes_ = bytearray((maps / area).read_bytes())
            used = lib.back(ffi.from_buffer(bytes_), int(area.partition("-")[0], 16))
            found.append(bytes(bytes_[:used]))
    return found


def main() -> None:
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    number = 0
    for box in BOXES:
        compiled = compile(box, body=body_of(box))
        blob = _native.pack(
            compiled.clone_flags, compiled.steps, compiled.uid_map, compiled.gid_map
        )
        (place / f"blob-{number}").write_bytes(b"\0" + blob)
        number += 1
    with tempfile.TemporaryDirectory() as scratch:
        made = plans(Path(scratch))
    for plan in made:
        (place / f"plan-{number}").write_bytes(b"\1" + plan)
        number += 1
    print(f"{number} seeds in {place}")


if __name__ == "__main__":
    main()
