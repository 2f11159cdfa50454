"""A plug-in of pytest: tells tools/vm.py what has been skipped, and why."""

import json

SKIPPED = set()


def pytest_runtest_logreport(report):
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        SKIPPED.add((report.nodeid.partition("[")[0].removeprefix("tests/"), reason))


def pytest_collectreport(report):
    if report.skipped:
        SKIPPED.add(
            (report.nodeid.removeprefix("tests/"), report.longrepr[2].removeprefix("Skipped: "))
        )


def pytest_terminal_summary(terminalreporter):
    counts = {}
    for name in ("passed", "failed", "error", "skipped", "xfailed"):
        if found := terminalreporter.stats.get(name):
            counts[name] = len(found)
    summary = ", ".join(f"{number} {name}" for name, number in counts.items())
    told = {"skipped": sorted(SKIPPED), "summary": summary}
    print(f"\nnsext-vm: told {json.dumps(told)}")
