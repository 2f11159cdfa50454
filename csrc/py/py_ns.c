/* Namespaces as objects: what there is no wrapper for in Python. */
#define _GNU_SOURCE
#include "native.h"
#include "../abi.h"
#include "../child/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* nsfs file handles (Linux 6.18; by the 64-bit id alone 6.19): open_by_handle_at(2) with this in
 * place of a mount's descriptor. */
#define FD_NSFS_ROOT (-10003)
#define FILEID_NSFS 0xf1

struct ns_id_req { /* listns(2), NS_ID_REQ_SIZE_VER0 */
    uint32_t size, spare;
    uint64_t ns_id; /* go on after this one */
    uint32_t ns_type, spare2;
    uint64_t user_ns_id;
};

struct nsfs_handle {
    uint32_t handle_bytes;
    int32_t handle_type;
    uint64_t ns_id;
    uint32_t ns_type, ns_inum;
};

_Static_assert(sizeof(struct ns_id_req) == 32, "NS_ID_REQ_SIZE_VER0");
_Static_assert(sizeof(struct nsfs_handle) == 24,
               "struct file_handle and NSFS_FILE_HANDLE_SIZE_VER0");

static int append(PyObject *list, const uint64_t *ids, long count)
{
    for (long i = 0; i < count; i++) {
        PyObject *id = PyLong_FromUnsignedLongLong(ids[i]);
        const int error = id ? PyList_Append(list, id) : -1;
        Py_XDECREF(id);
        if (error < 0)
            return -1;
    }
    return 0;
}

PyObject *native_listns(PyObject *module, PyObject *kinds)
{
    uint64_t ids[256];
    struct ns_id_req request = {.size = sizeof request};
    (void)module;
    const int flags = native_int(kinds);
    if (flags == -1 && PyErr_Occurred())
        return NULL;
    request.ns_type = (uint32_t)flags;
    PyObject *list = PyList_New(0);
    for (;;) {
        if (!list)
            return NULL;
        const long count = syscall(__NR_listns, &request, ids, sizeof ids / sizeof *ids, 0);
        if (count == 0 || (count < 0 && errno == ENOENT && request.ns_id))
            return list; /* there is none after that one */
        if (count < 0)
            native_raise(-errno);
        if (count < 0 || append(list, ids, count) < 0)
            Py_CLEAR(list);
        else
            request.ns_id = ids[count - 1];
    }
}

PyObject *native_open_ns(PyObject *module, PyObject *id)
{
    /* ns_type and ns_inum are given both or neither. */
    struct nsfs_handle handle = {.handle_bytes = 16, .handle_type = FILEID_NSFS};
    (void)module;
    handle.ns_id = PyLong_AsUnsignedLongLong(id);
    if (PyErr_Occurred())
        return NULL;
    const long fd = syscall(__NR_open_by_handle_at, FD_NSFS_ROOT, &handle, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? native_raise(-errno) : PyLong_FromLong(fd);
}

PyObject *native_mount(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    PyObject *path[2] = {NULL, NULL};
    PyObject *result = NULL;
    (void)module;
    if (count != 3)
        return PyErr_Format(PyExc_TypeError, "mount() takes 3 arguments");
    const int flags = native_int(args[2]);
    if (flags == -1 && PyErr_Occurred())
        return NULL;
    for (int i = 0; i < 2; i++) {
        path[i] = native_fs_bytes(args[i]);
        if (!path[i])
            goto done;
    }
    const char *const source = PyBytes_AsString(path[0]), *const target = PyBytes_AsString(path[1]);
    PyThreadState *thread = PyEval_SaveThread();
    const long done = syscall(__NR_mount, source, target, NULL, (long)flags, NULL);
    const int error = done < 0 ? -errno : 0;
    PyEval_RestoreThread(thread);
    result = error < 0 ? native_raise(error) : Py_NewRef(Py_None);
done:
    Py_XDECREF(path[0]);
    Py_XDECREF(path[1]);
    return result;
}

PyObject *native_umount(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != 2)
        return PyErr_Format(PyExc_TypeError, "umount() takes 2 arguments");
    const int flags = native_int(args[1]);
    if (flags == -1 && PyErr_Occurred())
        return NULL;
    PyObject *path = native_fs_bytes(args[0]);
    if (!path)
        return NULL;
    const char *const target = PyBytes_AsString(path);
    PyThreadState *thread = PyEval_SaveThread();
    const int error = syscall(__NR_umount2, target, (long)flags) < 0 ? -errno : 0;
    PyEval_RestoreThread(thread);
    Py_DECREF(path);
    if (error < 0)
        return native_raise(error);
    Py_RETURN_NONE;
}

/* A writable buffer of whole rows, of which the last ends it; NULL with an
 * exception set.  Its address stays while somebody holds the object. */
static void *probe_row(PyObject *object)
{
    Py_buffer view;
    if (PyObject_GetBuffer(object, &view, PyBUF_WRITABLE) < 0)
        return NULL;
    struct nsx_probe *row = view.buf;
    const size_t calls = (size_t)view.len / sizeof *row;
    if (!calls || (uintptr_t)row % sizeof(int64_t) || row[calls - 1].number >= 0) {
        PyErr_SetString(PyExc_ValueError, "a row of calls ends with a negative number");
        row = NULL;
    }
    PyBuffer_Release(&view);
    return row;
}

PyObject *native_probe(PyObject *module, PyObject *row)
{
    (void)module;
    void *calls = probe_row(row);
    if (!calls)
        return NULL;
    /* A filter may ask a supervisor, in a thread of ours, what to answer. */
    PyThreadState *thread = PyEval_SaveThread();
    nsx_child_probe(calls);
    PyEval_RestoreThread(thread);
    Py_RETURN_NONE;
}

PyObject *native_probe_entry(PyObject *module, PyObject *row)
{
    (void)module;
    void *calls = probe_row(row);
    if (!calls)
        return NULL;
    return Py_BuildValue("(KK)", (unsigned long long)(uintptr_t)nsx_child_probe,
                         (unsigned long long)(uintptr_t)calls);
}

PyObject *native_syscalls(void)
{
    return Py_BuildValue("{si si si si si si si si si si}", "clone", __NR_clone, "clone3",
                         __NR_clone3, "unshare", __NR_unshare, "setns", __NR_setns, "mount",
                         __NR_mount, "setgroups", __NR_setgroups, "setresgid", __NR_setresgid,
                         "setresuid", __NR_setresuid, "seccomp", __NR_seccomp,
                         "landlock_create_ruleset", __NR_landlock_create_ruleset);
}
