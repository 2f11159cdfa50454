"""CPython's own test.test_asyncio.test_subprocess over nsext.Popen.

asyncio starts its children with subprocess.Popen, and waits for them by pid or by a pidfd of its
own.
"""

import os
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import nsext

subprocess.Popen = nsext.Popen


def main():
    try:
        from test.test_asyncio import test_subprocess as module
    except ModuleNotFoundError as error:
        print(f"{error}: this Python has no test suite of its own; nothing was run")
        return os.environ.get("NSEXT_MUST_WORK") == "1"
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    print(f"{result.testsRun} ran, {len(result.skipped)} skipped")
    return not result.wasSuccessful()


if __name__ == "__main__":
    sys.exit(main())
