"""CPython's own test.test_subprocess over nsext.Popen.

What cannot pass: tests that patch subprocess._fork_exec, that need preexec_fn, or that patch
os.waitpid, since waiting goes by pidfd.
"""

import os
import resource
import subprocess
import sys
import unittest
from pathlib import Path

# Some tests skip themselves in a virtual environment: so this runs outside, on the source tree.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

import nsext

subprocess.Popen = nsext.Popen

EXCLUDED = {
    "test__use_vfork": "patches subprocess._fork_exec",
    "test_exception_errpipe_normal": "patches subprocess._fork_exec",
    "test_exception_errpipe_bad_data": "patches subprocess._fork_exec",
    "test_preexec": "preexec_fn",
    "test_preexec_exception": "preexec_fn",
    "test_preexec_gc_module_failure": "preexec_fn",
    "test_preexec_errpipe_does_not_double_close_pipes": "preexec_fn",
    "test_preexec_fork_failure": "preexec_fn",
    "test_close_fds_after_preexec": "preexec_fn",
    "test_surrogates_error_message": "preexec_fn",
    "test_stopped": "patches os.waitpid",
}


def chosen(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from chosen(item)
        elif item._testMethodName not in EXCLUDED:
            yield item


def main():
    try:
        import test.test_subprocess as module
    except ModuleNotFoundError as error:
        print(f"{error}: this Python has no test suite of its own; nothing was run")
        return os.environ.get("NSEXT_MUST_WORK") == "1"

    # test_no_leaking opens files up to the limit, if that is below a thousand or so.
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (1000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )
    suite = unittest.TestSuite(chosen(unittest.defaultTestLoader.loadTestsFromModule(module)))
    result = unittest.TextTestRunner(verbosity=1).run(suite)
    module.tearDownModule() if hasattr(module, "tearDownModule") else None
    print(f"{result.testsRun} ran, {len(result.skipped)} skipped")
    for test, reason in result.skipped:
        print(f"  skipped {test.id()}: {reason}")
    return not result.wasSuccessful()


if __name__ == "__main__":
    sys.exit(main())
