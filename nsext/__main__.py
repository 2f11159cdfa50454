"""python -m nsext."""

from ._cli import script

script()
