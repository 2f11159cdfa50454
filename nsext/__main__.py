"""python -m nsext."""

from ._cli import script

if __name__ == "__main__":  # not where a checker of stubs imports it
    script()
