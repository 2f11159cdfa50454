"""The tests of the spawn core once more, in the helper body: pytest --body=helper.

Whatever runs inline then runs in the helper, in the scripts too that tests start: the environment
carries it on.  What is about the inline body itself is marked so, with the reason.
"""

import os

VARIABLE = "NSEXT_BODY"
HELPER_TEXT = 0x5A000000, 0x5A100000  # where setup.py links it

CORE = (
    "any_keywords",
    "attribute_steps",
    "bodies",
    "errors",
    "fallbacks",
    "faults_parent",
    "fds",
    "idmaps",
    "interrupt",
    "kept",
    "keyring",
    "landlock",
    "limits",
    "namespaces",
    "popen",
    "privilege_steps",
    "privileges",
    "process",
    "sandbox",
    "seccomp",
    "shared_fds",
    "soak",
    "steps",
    "storms",
    "threads_env",
    "usage",
    "validation",
)

# With the core, what runs all of the C code: for `make sanitize`, which asks this file.
SANITIZED = (
    *CORE,
    "child_objects",
    "clone",
    "clone_entry",
    "helper_steps",
    "init",
    "join",
    "module",
    "mount_specs",
    "mount_steps",
    "namespace_objects",
    "paused",
    "pty",
)


def forced():
    """The body that every spawn has here; None: the one that it needs."""
    return os.environ.get(VARIABLE)


def install():
    """Wrap the function that decides, if the environment asks for it."""
    from nsext import _launch

    decide = _launch.body_of
    if forced() is None or decide.__module__ == __name__:
        return
    assert forced() == "helper", f"{VARIABLE}={forced()}"

    def body_of(*args, **keywords):
        body = decide(*args, **keywords)
        return "helper" if body == "inline" else body

    _launch.body_of = body_of


def is_core(path):
    """Is it a file of the core's tests?"""
    return path.stem.removeprefix("test_") in CORE


def select(items):
    """(tests to run under a forced body, those that are left out: all where there is none)."""
    from nsext._helper import helper

    chosen, others = [], []
    for item in items:
        about_inline = item.get_closest_marker("inline") is not None
        runs = is_core(item.path) and not about_inline and helper() is not None
        (chosen if runs else others).append(item)
    return chosen, others


if __name__ == "__main__":
    print(*(f"tests/test_{name}.py" for name in SANITIZED))
