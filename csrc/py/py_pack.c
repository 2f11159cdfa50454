/* pack(): compile()'s steps, as tuples, into the bytes of a struct nsx_blob. */
#include "native.h"
#include "../plan.h"

#include <string.h>

struct writer {
    char *bytes;
    size_t size, room;
};

/* The offset of a copy of these bytes, followed by NUL; 0: no memory. */
static uint32_t put(struct writer *out, const void *data, size_t size)
{
    const size_t at = (out->size + 7) & ~(size_t)7;
    const size_t end = at + size + 1;
    if (end > UINT32_MAX / 2) {
        PyErr_SetString(PyExc_ValueError, "this description is too large");
        return 0;
    }
    if (!out->bytes || end > out->room) {
        size_t room = end * 2;
        char *bytes = PyMem_Realloc(out->bytes, room);
        if (!bytes) {
            PyErr_NoMemory();
            return 0;
        }
        memset(bytes + out->size, 0, room - out->size);
        out->bytes = bytes;
        out->room = room;
    }
    if (data)
        memcpy(out->bytes + at, data, size);
    out->bytes[at + size] = 0;
    out->size = end;
    return (uint32_t)at;
}

static uint32_t find_op(const char *name)
{
    uint32_t op = 0;
    while (op < NSX_OP_COUNT && strcmp(nsx_step_name(op), name) != 0)
        op++;
    return op;
}

/* One argument of a step, into arg[]; how many slots it took, or -1. */
static int put_argument(struct writer *out, char kind, PyObject *value, uint64_t *arg)
{
    if (kind == 'i') {
        *arg = PyLong_AsUnsignedLongLongMask(value);
        return *arg == (uint64_t)-1 && PyErr_Occurred() ? -1 : 1;
    }
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(value, &data, &size) < 0)
        return -1;
    if (kind == 's' && memchr(data, 0, (size_t)size)) {
        PyErr_SetString(PyExc_ValueError, "embedded null byte");
        return -1;
    }
    arg[0] = put(out, data, (size_t)size);
    if (!arg[0])
        return -1;
    if (kind == 's')
        return 1;
    arg[1] = (uint64_t)size;
    return 2;
}

static int put_step(struct writer *out, uint32_t at, PyObject *tuple)
{
    struct nsx_step step = {0};
    PyObject *name = PyTuple_GetItem(tuple, 0);
    const char *text = name ? PyUnicode_AsUTF8AndSize(name, NULL) : NULL;
    if (!text)
        return -1;
    step.op = find_op(text);
    const char *signature = nsx_step_signature(step.op);
    if (step.op == NSX_OP_COUNT || PyTuple_Size(tuple) != (Py_ssize_t)strlen(signature) + 1) {
        PyErr_Format(PyExc_ValueError, "no such step: %R", tuple);
        return -1;
    }
    uint64_t *arg = step.arg;
    for (Py_ssize_t i = 0; signature[i]; i++) {
        int slots = put_argument(out, signature[i], PyTuple_GetItem(tuple, i + 1), arg);
        if (slots < 0)
            return -1;
        arg += slots;
    }
    memcpy(out->bytes + at, &step, sizeof step);
    return 0;
}

static int put_map(struct writer *out, PyObject *text, uint32_t *at, uint32_t *size)
{
    char *data;
    Py_ssize_t length;
    if (text == Py_None)
        return 0;
    if (PyBytes_AsStringAndSize(text, &data, &length) < 0)
        return -1;
    *at = put(out, data, (size_t)length);
    *size = (uint32_t)length;
    return *at ? 0 : -1;
}

static int put_all(struct writer *out, struct nsx_blob *head, PyObject *steps)
{
    const Py_ssize_t count = PyTuple_Size(steps);
    if (count < 0 || count > NSX_MAX_STEPS) {
        PyErr_SetString(PyExc_ValueError, "too many steps");
        return -1;
    }
    head->nsteps = (uint32_t)count;
    /* The head ends where an 8-aligned step starts. */
    out->size = 0;
    put(out, NULL, sizeof *head + (size_t)count * sizeof(struct nsx_step));
    for (Py_ssize_t i = 0; i < count; i++) {
        uint32_t at = (uint32_t)(sizeof *head + (size_t)i * sizeof(struct nsx_step));
        if (put_step(out, at, PyTuple_GetItem(steps, i)) < 0)
            return -1;
    }
    return 0;
}

PyObject *native_pack(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    struct writer out = {0};
    struct nsx_blob head = {.magic = NSX_BLOB_MAGIC};
    PyObject *result = NULL;
    (void)module;
    if (count != 4)
        return PyErr_Format(PyExc_TypeError, "pack() takes 4 arguments");
    head.new_flags = (uint32_t)PyLong_AsUnsignedLong(args[0]);
    if (PyErr_Occurred())
        return NULL;
    if (put_all(&out, &head, args[1]) == 0 &&
        put_map(&out, args[2], &head.uid_map, &head.uid_map_size) == 0 &&
        put_map(&out, args[3], &head.gid_map, &head.gid_map_size) == 0) {
        head.size = (uint32_t)out.size;
        memcpy(out.bytes, &head, sizeof head);
        if (nsx_blob_check(out.bytes, out.size) < 0)
            PyErr_SetString(PyExc_ValueError, "these steps make no plan");
        else
            result = PyBytes_FromStringAndSize(out.bytes, (Py_ssize_t)out.size);
    }
    PyMem_Free(out.bytes);
    return result;
}
