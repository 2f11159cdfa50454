"""struct nsx_record of csrc/plan.h, which is nothing but words: where each of them is."""

import re
from pathlib import Path

_TEXT = Path(__file__).parent.with_name("csrc").joinpath("plan.h").read_text()
_STRUCT = re.search(r"^struct nsx_record \{\n(.*?)^\};", _TEXT, re.MULTILINE | re.DOTALL)
assert _STRUCT
NAMES = re.findall(r"^ +u?int32_t (\w+);", _STRUCT[1], re.MULTILINE)

SIZE = 4 * len(NAMES)
"""In bytes."""


def offset(name: str) -> int:
    """Where this word is, in bytes."""
    return 4 * NAMES.index(name)
