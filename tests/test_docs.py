"""The documentation: every example runs as it stands, and nothing public is left out."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from support import needs

import nsext
from nsext import _native
from nsext._spec import FIELDS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DEADLINE = 60


class Block(NamedTuple):
    name: str  # README.md:14
    code: str
    modules: tuple[str, ...]  # <!-- needs: anyio trio -->


def blocks(text, page):
    """The python blocks of a page, but those marked <!-- not run: reason -->."""
    lines = iter(enumerate(text.splitlines(), 1))
    mark = ""
    for number, line in lines:
        if not line.startswith("```"):
            mark = line.strip() or mark
            continue
        fence = line.strip()
        code = []
        for _, inside in lines:
            if inside.rstrip() == "```":
                break
            code.append(inside)
        else:
            raise ValueError(f"{page}:{number}: the block has no end")
        if fence == "```python" and not re.fullmatch(r"<!-- not run: .+ -->", mark):
            needed = re.fullmatch(r"<!-- needs: (.+) -->", mark)
            modules = tuple(needed[1].split()) if needed else ()
            yield Block(f"{page}:{number}", "\n".join(code) + "\n", modules)
        mark = ""


BLOCKS = [block for page in PAGES for block in blocks(page.read_text(), page.relative_to(ROOT))]


def missing(names, text):
    """Those of *names* that *text* does not have as words in code: in backquotes or blocks."""
    code = " ".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))
    return sorted(name for name in names if not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", code))


def test_blocks_are_found():
    text = "```python\na\n```\n<!-- not run: why -->\n```python\nb\n```\n"
    text += "<!-- needs: x y -->\n\n```python\nc\n```\n```sh\nd\n```\n```python\ne\n```\n"
    found = [(block.code, block.modules) for block in blocks(text, "page")]
    assert found == [("a\n", ()), ("c\n", ("x", "y")), ("e\n", ())]
    with pytest.raises(ValueError, match="page:1: the block has no end"):
        list(blocks("```python\na\n", "page"))


@pytest.mark.parametrize("block", BLOCKS, ids=[block.name for block in BLOCKS])
def test_example_runs(block, tmp_path):
    for module in block.modules:
        needs(importlib.util.find_spec(module), f"needs {module}")
    try:
        nsext.run(["true"], new="user", timeout=DEADLINE)
    except nsext.SpawnError as error:
        needs(False, f"needs user namespaces: {error}")
    script = tmp_path / "example.py"
    script.write_text(block.code)
    done = subprocess.run(
        [sys.executable, "-W", "always", str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, f"{block.name}:\n{done.stdout}{done.stderr}"
    assert "Warning" not in done.stderr, f"{block.name}:\n{done.stderr}"


def test_every_page_has_been_read():
    assert {page.name for page in PAGES} >= {
        "README.md",
        "api.md",
        "cli.md",
        "design.md",
        "errors.md",
        "from-subprocess.md",
        "namespaces.md",
        "pid1.md",
        "privileges.md",
        "recipes.md",
        "resources.md",
    }
    assert BLOCKS


def public(kind):
    """Attributes and methods that are documented where they are, not where they come from."""
    return {name for name in vars(kind) if not name.startswith("_")}


def test_api_mentions_every_name():
    api = (ROOT / "docs" / "api.md").read_text()
    assert not missing(nsext.__all__, api)
    assert not missing(FIELDS, api)
    kinds = (
        nsext.Popen,
        nsext.Process,
        nsext.Usage,
        nsext.CompletedProcess,
        nsext.Cgroup,
        nsext.CgroupHandle,
        nsext.CgroupStats,
        nsext.Sandbox,
    )
    for kind in (*kinds, nsext.Namespace, nsext.CloneFlags):
        assert not missing(public(kind), api), kind


def test_design_lists_every_step():
    table = (ROOT / "docs" / "design.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (H?) *\|", table, re.MULTILINE)
    listed = {name: stage for name, stage, _ in rows}
    assert listed == {name: stage for name, (stage, _) in _native.STEPS.items()}
    source = (ROOT / "csrc" / "steps.def").read_text()
    helper = set(re.findall(r"^HELPER_STEP\((\w+),", source, re.MULTILINE))
    assert {name for name, _, only in rows if only} == helper


def test_links_lead_somewhere():
    others = [ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
    for page in [*PAGES, *others]:
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
            path, _, anchor = target.partition("#")
            linked = (page.parent / path) if path else page
            assert linked.exists(), f"{page.name}: {target}"
            if anchor:
                titles = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
                plain = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
                assert anchor in {title.replace(" ", "-") for title in plain}, target
