"""docs/kernels.md and the selection for virtual machines: `make vmtest` fills and compares them."""

import re
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TREE / "tools"), str(TREE / "tests" / "vm")]
try:
    from selection import SELECTION
    from vm_table import PAGE, Tables
finally:
    sys.path[:2] = []


def test_the_columns_are_the_makefiles():
    (kernels,) = re.findall(r"^VM_KERNELS \?= (.*)$", (TREE / "Makefile").read_text(), re.MULTILINE)
    assert Tables().kernels == kernels.split()


def test_reading_and_writing_are_one(tmp_path):
    copy = tmp_path / "kernels.md"
    copy.write_text(PAGE.read_text())
    Tables(copy).write()
    assert copy.read_text() == PAGE.read_text()


def test_each_test_is_there():
    skipped = {f"tests/{test}" for rows in Tables().skips.values() for _, test in rows}
    assert skipped <= {node.partition("[")[0] for node in SELECTION}
    for node in SELECTION:
        file, _, name = node.partition("[")[0].partition("::")
        assert re.search(rf"^def {name}\(", (TREE / file).read_text(), re.MULTILINE), node


@pytest.mark.parametrize("kernel", ["6.1", "newest"])
def test_a_difference_is_told(kernel):
    """Not that the newest kernel has something: it is another one each month."""
    tables = Tables()
    told = {
        "features": dict(tables.features[kernel]),
        "skipped": [[test, reason] for reason, test in tables.skips[kernel]],
    }
    assert tables.update(kernel, told) == []
    told["features"]["listns(2)"] = "perhaps"
    told["skipped"].append(["test_a.py::test_b", "needs | this"])
    differences = tables.update(kernel, told)
    words = [f"{kernel}: skipped, and not in the table: test_a.py::test_b: needs / this"]
    if kernel != "newest":
        words.insert(0, f"{kernel}: listns(2): perhaps; the table says no")
    assert differences == words
    told["skipped"].pop()
    (line,) = tables.update(kernel, told)
    assert line == f"{kernel}: in the table, and not skipped: test_a.py::test_b: needs / this"
