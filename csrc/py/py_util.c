#include "native.h"
#include "../parent/wait.h"

#include <errno.h>
#include <string.h>

PyObject *native_raise(int error)
{
    errno = -error;
    return PyErr_SetFromErrno(PyExc_OSError);
}

int native_int(PyObject *number)
{
    long value = PyLong_AsLong(number);
    if (value == (int)value)
        return (int)value;
    PyErr_SetString(PyExc_OverflowError, "Python int too large to convert to C int");
    return -1;
}

int64_t native_timeout(PyObject *seconds)
{
    if (seconds == Py_None)
        return NSX_FOREVER;
    double value = PyFloat_AsDouble(seconds);
    if (value == -1.0 && PyErr_Occurred())
        return -1;
    if (value != value) {
        PyErr_SetString(PyExc_ValueError, "a timeout is a number of seconds, not NaN");
        return -1;
    }
    if (value <= 0)
        return 0;
    return value > 4e9 ? NSX_FOREVER : (int64_t)(value * 1e9);
}

PyObject *native_fs_bytes(PyObject *object)
{
    PyObject *path = PyOS_FSPath(object);
    if (!path)
        return NULL;
    PyObject *bytes = PyUnicode_Check(path) ? PyUnicode_EncodeFSDefault(path) : Py_NewRef(path);
    Py_DECREF(path);
    if (bytes && strlen(PyBytes_AsString(bytes)) != (size_t)PyBytes_Size(bytes)) {
        PyErr_SetString(PyExc_ValueError, "embedded null byte");
        Py_CLEAR(bytes);
    }
    return bytes;
}
