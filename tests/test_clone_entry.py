"""clone(): what may be its entry and argument, and what is refused.

The entries are compiled by cffi; what they can do, test_clone.py has.
"""

import ctypes

import pytest
from support import compiled

import nsext

CDEF = """
int give(void *status);
int wrong_argument(long x);
void wrong_result(void *arg);
int many(void *arg, int other);
extern int counter;
void *address_of(int (*entry)(void *));
"""

SOURCE = """
int counter = 1;
int give(void *status) { return (int)(long)status; }
int wrong_argument(long x) { return (int)x; }
void wrong_result(void *arg) { (void)arg; }
int many(void *arg, int other) { (void)arg; return other; }
void *address_of(int (*entry)(void *)) { return (void *)entry; }
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    made = compiled(tmp_path_factory.mktemp("cffi"), "_nsext_entries", CDEF, SOURCE)
    made[0].callback("int(void *)", abs)  # from the first one on libffi may keep a file open
    return made


@pytest.fixture
def ffi(module):
    return module[0]


@pytest.fixture
def lib(module):
    return module[1]


@pytest.fixture
def entry(ffi, lib):
    return lambda name: ffi.addressof(lib, name)


# ---- what may be an entry


def test_cffi_addressof(entry):
    for value in (0, 1, 42, 255):
        assert nsext.clone(entry("give"), value).wait() == value


def test_status_is_the_low_byte(entry):
    for value, status in ((256, 0), (257, 1), (-1, 255), (0x7FFFFFFF, 255)):
        assert nsext.clone(entry("give"), value).wait() == status


def test_cffi_casts(ffi, lib, entry):
    pointer = ffi.cast("int (*)(void *)", entry("give"))
    assert nsext.clone(pointer, 3).wait() == 3
    assert nsext.clone(ffi.cast("void *", entry("give")), 4).wait() == 4
    assert nsext.clone(lib.address_of(entry("give")), 5).wait() == 5


def test_address(ffi, entry):
    assert nsext.clone(int(ffi.cast("uintptr_t", entry("give"))), 6).wait() == 6


def test_ctypes_function_pointers(ffi, entry):
    libc = ctypes.CDLL(None)
    assert nsext.clone(libc.abs, -7).wait() == 7
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
    assert nsext.clone(kind(int(ffi.cast("uintptr_t", entry("give")))), 8).wait() == 8
    assert nsext.clone(ctypes.cast(libc.abs, kind), 9).wait() == 9


def test_capsule(ffi, entry):
    api = ctypes.pythonapi
    api.PyCapsule_New.restype = ctypes.py_object
    api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    address = int(ffi.cast("uintptr_t", entry("give")))
    for name in (None, b"some.name"):
        assert nsext.clone(api.PyCapsule_New(address, name, None), 9).wait() == 9


def test_python_is_refused_and_told_why(ffi):
    kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)

    def function(arg):
        return 0

    class Callable:
        def __call__(self):
            return 0

    callback = ffi.callback("int(void *)", function)
    for value in (function, lambda arg: 0, Callable(), print, kind(function), callback, Callable):
        with pytest.raises(TypeError, match=r"C function.*interpreter"):
            nsext.clone(value)


@pytest.mark.parametrize("value", [None, "give", b"give", 1.5, True, [], object()])
def test_what_is_no_function(value):
    with pytest.raises(TypeError):
        nsext.clone(value)


@pytest.mark.parametrize("value", [0, -1, 1 << 64])
def test_what_is_no_address(value):
    with pytest.raises(ValueError):
        nsext.clone(value)


@pytest.mark.parametrize("name", ["wrong_argument", "wrong_result", "many"])
def test_functions_of_another_type(entry, name):
    with pytest.raises(TypeError, match=r"int \(\*\)\(void \*\)"):
        nsext.clone(entry(name))


def test_data_is_no_function(ffi, entry):
    for value in (ffi.new("int *"), entry("counter"), ffi.new("char[4]")):
        with pytest.raises(TypeError):
            nsext.clone(value)
    with pytest.raises((TypeError, ValueError)):
        nsext.clone(ffi.NULL)


# ---- the argument


@pytest.mark.parametrize("value", [None, "x", 1.5, True, []])
def test_wrong_arguments(entry, value):
    with pytest.raises(TypeError):
        nsext.clone(entry("give"), value)


@pytest.mark.parametrize("value", [1 << 64, -(1 << 63) - 1])
def test_arguments_that_do_not_fit(entry, value):
    with pytest.raises(ValueError):
        nsext.clone(entry("give"), value)
