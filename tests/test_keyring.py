"""Trap 42: the session keyring of the caller is inherited, into a user namespace too.

The attack: a program that reads a key of the caller's, by its name and by its number.
"""

import pytest
from support import as_user, script

pytestmark = pytest.mark.usefixtures("root")

# What the scripts share.  Numbers of keyctl(2): JOIN_SESSION_KEYRING 1, SEARCH 10, READ 11.
KEYS = '''
import platform
ADD_KEY, KEYCTL = {"x86_64": (248, 250), "aarch64": (217, 219)}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)
SESSION = -3

def keyctl(*arguments):
    result = libc.syscall(KEYCTL, *arguments)
    return result if result >= 0 else -ctypes.get_errno()

def make_secret():
    assert keyctl(1, None) > 0
    key = libc.syscall(ADD_KEY, b"user", b"nsext-secret", b"swordfish", 9, SESSION)
    assert key > 0, os.strerror(ctypes.get_errno())
    return key

PROGRAM = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
call, key = int(sys.argv[1]), int(sys.argv[2])
def keyctl(*arguments):
    result = libc.syscall(call, *arguments)
    return result if result >= 0 else -ctypes.get_errno()
text = ctypes.create_string_buffer(64)
found = keyctl(10, -3, b"user", b"nsext-secret", 0)
read = keyctl(11, key, text, 64)
print(found, read, text.value.decode() if read > 0 else "")
"""

def attack(**fields):
    """(what a search gives, what reading by number gives)."""
    words = output([sys.executable, "-c", PROGRAM, str(KEYCTL), str(key)], **fields).split()
    return int(words[0]), " ".join(words[2:]) or int(words[1])

key = make_secret()
'''

CHECKS = """
APART = [{"new": "user"}, {"new": "user pid mnt", "init": True}, {"keyring": "new"}]
if os.geteuid() == 0:
    APART.append({"new": "mnt", "root": "/"})
    assert attack(new="mnt", root="/", keyring="inherit") == (key, "swordfish")
    assert attack(new="mnt pid") == (key, "swordfish")
NONE = (-errno.ENOKEY, -errno.EACCES)
assert attack() == (key, "swordfish")  # as any child of ours has it
assert attack(keyring="inherit") == (key, "swordfish")
assert attack(new="user", keyring="inherit") == (key, "swordfish")
for fields in APART:
    assert attack(**fields) == NONE, (fields, attack(**fields))
assert attack() == (key, "swordfish")  # ours is still there
"""


def test_trap_42_a_secret_of_the_callers():
    script(KEYS + CHECKS)


def test_trap_42_as_user():
    as_user(KEYS + CHECKS)


def test_a_filter_that_refuses_all_of_keyctl():
    """No key can be read then, so the default does not fail; what was asked for does."""
    script(
        KEYS
        + """
        refuse(keyctl=1)
        assert attack(new="user") == (-errno.EPERM, -errno.EPERM)
        error = failure(nsext.run, ["true"], new="user", keyring="new")
        assert (error.errno, error.stage) == (errno.EPERM, "setup") and is_plain(error), error
        assert error.step == "join a new session keyring" and "seccomp" in error.hint
        """.replace("\n        ", "\n")
    )


def test_a_filter_that_refuses_the_joining_only():
    """Then keys can be read, and the default is an error, too."""
    script(
        KEYS
        + """
        refuse(keyctl=(1, 1))
        for fields in ({"new": "user"}, {"keyring": "new"}):
            error = failure(nsext.run, ["true"], **fields)
            assert error.errno == errno.EPERM and "keyring" in error.step, error
        assert attack(new="user", keyring="inherit") == (key, "swordfish")
        """.replace("\n        ", "\n")
    )


def test_a_kernel_without_keys():
    script("""
    refuse(keyctl=38)
    assert nsext.run(["true"], new="user").returncode == 0
    assert nsext.run(["true"], keyring="new").returncode == 0
    """)


def test_the_quota_is_the_callers():
    """kernel.keys.maxkeys: an ordinary user's is 200 by default."""
    as_user(
        KEYS
        + """
        limit = int(Path("/proc/sys/kernel/keys/maxkeys").read_text())
        held = []
        try:
            for number in range(limit + 1):
                name = b"filler-%d" % number
                if libc.syscall(ADD_KEY, b"user", name, b"x", 1, SESSION) < 0:
                    assert ctypes.get_errno() == errno.EDQUOT
                    break
            else:
                raise AssertionError("no quota")
            error = failure(nsext.run, ["true"], new="user")
            assert error.errno == errno.EDQUOT and is_plain(error), error
            assert "maxkeys" in error.hint and "inherit" in error.hint
            assert nsext.run(["true"], new="user", keyring="inherit").returncode == 0
        finally:
            keyctl(7, SESSION)  # KEYCTL_CLEAR
        """.replace("\n        ", "\n"),
        uid=12346,
    )
