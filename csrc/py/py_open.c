/* resolve(): open a path inside a root directory, for open_in(). */
#include "native.h"
#include "../child/resolve.h"
#include "../parent/fd.h"

#include <errno.h>

PyObject *native_resolve(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != 3)
        return PyErr_Format(PyExc_TypeError, "resolve() takes 3 arguments");
    const int root = native_int(args[0]);
    const int flags = PyErr_Occurred() ? 0 : native_int(args[2]);
    if (PyErr_Occurred())
        return NULL;
    PyObject *path = native_fs_bytes(args[1]);
    if (!path)
        return NULL;
    const char *text = PyBytes_AsString(path);
    PyThreadState *thread = PyEval_SaveThread();
    const long fd = nsx_resolve(root, text, flags);
    PyEval_RestoreThread(thread);
    Py_DECREF(path);
    return fd < 0 ? native_raise((int)fd) : PyLong_FromLong(fd);
}
