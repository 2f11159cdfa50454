/* Waiting and signalling, and the bare wrappers. */
#define _GNU_SOURCE
#include "native.h"
#include "../abi.h"
#include "../parent/idmap.h"
#include "../parent/wait.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Two ints from a call's arguments; -1 with an exception set. */
static int two_ints(const char *name, PyObject *const *args, Py_ssize_t count, int out[2])
{
    if (count != 2) {
        PyErr_Format(PyExc_TypeError, "%s() takes 2 arguments", name);
        return -1;
    }
    for (int i = 0; i < 2; i++) {
        out[i] = native_int(args[i]);
        if (out[i] == -1 && PyErr_Occurred())
            return -1;
    }
    return 0;
}

static PyObject *none_or_raise(long result)
{
    if (result < 0)
        return native_raise(-errno);
    Py_RETURN_NONE;
}

/* The process is reaped, and nobody will learn of its end a second time: so this
 * must not fail for the usage's sake. */
static void set_usage(PyObject *module, PyObject *owner, const struct nsx_usage *usage)
{
    PyObject *bytes = native_usage(usage);
    if (!bytes || PyObject_SetAttr(owner, native_state(module)->usage, bytes) < 0)
        PyErr_Clear();
    Py_XDECREF(bytes);
}

PyObject *native_wait(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    struct nsx_end end = {0};
    struct nsx_usage usage = {0};
    if (count != 3)
        return PyErr_Format(PyExc_TypeError, "wait() takes 3 arguments");
    const int pidfd = native_int(args[0]);
    if (pidfd == -1 && PyErr_Occurred())
        return NULL;
    const int64_t timeout = native_timeout(args[1]);
    if (timeout < 0)
        return NULL;
    const int64_t deadline = timeout == NSX_FOREVER ? NSX_FOREVER : nsx_now() + timeout;
    for (;;) {
        int64_t left = deadline == NSX_FOREVER ? NSX_FOREVER : deadline - nsx_now();
        int done;
        PyThreadState *thread = PyEval_SaveThread();
        done = nsx_parent_wait(pidfd, left > 0 ? left : 0, 1, &end, &usage);
        PyEval_RestoreThread(thread);
        if (done == 1) {
            if (end.measured)
                set_usage(module, args[2], &usage);
            return PyLong_FromLong(end.exited ? end.status : -end.status);
        }
        if (done == -EINTR) {
            if (PyErr_CheckSignals() < 0)
                return NULL;
        } else if (done < 0) {
            return native_raise(done);
        } else if (left <= 0) {
            Py_RETURN_NONE;
        }
    }
}

PyObject *native_send_signal(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    int number[2];
    (void)module;
    if (two_ints("send_signal", args, count, number) < 0)
        return NULL;
    int error = nsx_parent_signal(number[0], number[1]);
    if (error < 0)
        return native_raise(error);
    Py_RETURN_NONE;
}

PyObject *native_unshare(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != 1)
        return PyErr_Format(PyExc_TypeError, "unshare() takes 1 argument");
    const int flags = native_int(args[0]);
    if (flags == -1 && PyErr_Occurred())
        return NULL;
    return none_or_raise(syscall(SYS_unshare, flags));
}

PyObject *native_setns(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    int number[2];
    (void)module;
    if (two_ints("setns", args, count, number) < 0)
        return NULL;
    return none_or_raise(syscall(SYS_setns, number[0], number[1]));
}

PyObject *native_capabilities(PyObject *module, PyObject *none)
{
    (void)module, (void)none;
    return PyLong_FromUnsignedLongLong(nsx_parent_capabilities());
}

PyObject *native_pidfd_open(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    int number[2];
    (void)module;
    if (two_ints("pidfd_open", args, count, number) < 0)
        return NULL;
    long fd = syscall(__NR_pidfd_open, number[0], number[1]);
    return fd < 0 ? native_raise(-errno) : PyLong_FromLong(fd);
}
