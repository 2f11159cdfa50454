"""`make sanitize` has the runtimes preloaded: into interpreters, and not into their programs."""

import os

RUNTIME = {}
"""For the environment of an interpreter that is to have them, too."""

if "ASAN_OPTIONS" in os.environ:
    names = ("LD_PRELOAD", "ASAN_OPTIONS", "UBSAN_OPTIONS", "PYTHONMALLOC")
    RUNTIME = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.pop("LD_PRELOAD", None)
