"""A root that forgets: a program may change everything, and nothing has changed.

    python examples/throwaway_root.py [TREE [COMMAND ...]]

TREE is a directory that becomes the root: a Debian of debootstrap's, an image that was unpacked.
Without one a small tree is made, with the running system's programs in it.
"""

import sys
import tempfile
from pathlib import Path

import nsext

VANDAL = """
echo 'debug = true' >/etc/app.conf
rm -r /srv/data
touch /new
ls /
"""


def forgetful(tree, mounts):
    """A sandbox whose root is *tree*, under a layer in memory that ends with each program."""
    return nsext.Sandbox(
        new="user pid mnt uts ipc",
        root=nsext.Overlay(lower=tree),
        mounts=mounts,
    )


def small_tree(place):
    """Files that somebody would miss."""
    for name, text in {"etc/app.conf": "debug = false\n", "srv/data/1": "one\n"}.items():
        (place / name).parent.mkdir(parents=True)
        (place / name).write_text(text)
    return place


def files(tree):
    return {str(path.relative_to(tree)) for path in tree.rglob("*")}


def main():
    if len(sys.argv) > 1:
        tree, *command = sys.argv[1:]
        sys.exit(forgetful(tree, [nsext.Dev()]).call(command or ["/bin/sh"]))

    with tempfile.TemporaryDirectory() as name:
        tree = small_tree(Path(name))
        before = files(tree)
        box = forgetful(tree, nsext.hostlike(etc=False))

        print(f"the root is {tree}, under a layer in memory")
        seen = box.check_output(["sh", "-e", "-c", VANDAL], text=True).split()
        assert "new" in seen
        print("inside there was:", *seen)

        # The next program finds it as it was, and so does everybody else.
        again = box.check_output(["cat", "/etc/app.conf", "/srv/data/1"], text=True)
        assert again == "debug = false\none\n"
        assert files(tree) == before
        print("afterwards there is:", *sorted(before))

        # The same, but the changes are kept, in a directory of their own.
        changes, work = Path(name, "changes"), Path(name, "work")
        changes.mkdir()
        work.mkdir()
        root = nsext.Overlay(lower=tree, upper=changes, work=work)
        box.run(["sh", "-e", "-c", VANDAL], root=root, stdout=nsext.DEVNULL, check=True)
        assert (changes / "etc/app.conf").read_text() == "debug = true\n"
        print("changed:", *(name for name in ("etc/app.conf", "new") if (changes / name).exists()))


if __name__ == "__main__":
    main()
