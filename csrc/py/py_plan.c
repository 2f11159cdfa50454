#include "py_plan.h"
#include "../parent/environ.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_PATH "/bin:/usr/bin" /* os.defpath */

extern char **environ;

static struct nsx_plan *plan_of(struct nsx_slot **slot)
{
    return nsx_slot_plan(*slot);
}

static uint32_t append(struct nsx_slot **slot, const void *data, size_t size)
{
    uint32_t at = nsx_slot_append(slot, data, size);
    if (!at)
        PyErr_NoMemory();
    return at;
}

/* A NULL-terminated array of count entries; the caller fills them in. */
static uint32_t append_array(struct nsx_slot **slot, size_t count)
{
    uint32_t at = append(slot, NULL, (count + 1) * sizeof(uintptr_t));
    if (at)
        memset((char *)plan_of(slot) + at, 0, (count + 1) * sizeof(uintptr_t));
    return at;
}

static void set_entry(struct nsx_slot **slot, uint32_t array, size_t index, uint32_t value)
{
    uintptr_t *entry = (uintptr_t *)(void *)((char *)plan_of(slot) + array);
    entry[index] = value;
}

int plan_blob(struct nsx_slot **slot, PyObject *blob)
{
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(blob, &data, &size) < 0)
        return -1;
    if (nsx_blob_check(data, (size_t)size) < 0) {
        PyErr_SetString(PyExc_ValueError, "not a plan made by pack()");
        return -1;
    }
    uint32_t at = append(slot, data, (size_t)size);
    plan_of(slot)->blob = at;
    return at ? 0 : -1;
}

int plan_argv(struct nsx_slot **slot, PyObject *args)
{
    PyObject *items = PySequence_Tuple(args);
    if (!items)
        return -1;
    const Py_ssize_t count = PyTuple_Size(items);
    int error = -1;
    uint32_t array = append_array(slot, (size_t)count);
    if (!array)
        goto done;
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *bytes = native_fs_bytes(PyTuple_GetItem(items, i));
        if (!bytes)
            goto done;
        uint32_t at = append(slot, PyBytes_AsString(bytes), (size_t)PyBytes_Size(bytes) + 1);
        Py_DECREF(bytes);
        if (!at)
            goto done;
        set_entry(slot, array, (size_t)i, at);
    }
    plan_of(slot)->argv = array;
    plan_of(slot)->argc = (uint32_t)count;
    error = 0;
done:
    Py_DECREF(items);
    return error;
}

#ifdef Py_GIL_DISABLED
/* os.putenv() of another thread frees what is read here, and no lock is held over it. */
static int env_inherited(struct nsx_slot **slot)
{
    uint32_t array, count;
    if (nsx_environ_append(slot, &array, &count) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    plan_of(slot)->envp = array;
    plan_of(slot)->envc = count;
    return 0;
}
#else
static int env_inherited(struct nsx_slot **slot)
{
    size_t count = 0;
    while (environ && environ[count])
        count++;
    uint32_t array = append_array(slot, count);
    if (!array)
        return -1;
    for (size_t i = 0; i < count; i++) {
        uint32_t at = append(slot, environ[i], strlen(environ[i]) + 1);
        if (!at)
            return -1;
        set_entry(slot, array, i, at);
    }
    plan_of(slot)->envp = array;
    plan_of(slot)->envc = (uint32_t)count;
    return 0;
}
#endif

/* "name=value" of an item of the mapping; 0 with an exception set. */
static uint32_t append_variable(struct nsx_slot **slot, PyObject *item)
{
    uint32_t at = 0;
    PyObject *name = NULL, *value = NULL;
    if (!PyTuple_Check(item) || PyTuple_Size(item) != 2) {
        PyErr_SetString(PyExc_TypeError, "env must be a mapping");
        return 0;
    }
    name = native_fs_bytes(PyTuple_GetItem(item, 0));
    value = name ? native_fs_bytes(PyTuple_GetItem(item, 1)) : NULL;
    if (!value)
        goto done;
    const size_t name_size = (size_t)PyBytes_Size(name);
    const size_t value_size = (size_t)PyBytes_Size(value);
    if (memchr(PyBytes_AsString(name), '=', name_size)) {
        PyErr_SetString(PyExc_ValueError, "illegal environment variable name");
        goto done;
    }
    at = append(slot, NULL, name_size + value_size + 2);
    if (at) {
        char *text = (char *)plan_of(slot) + at;
        memcpy(text, PyBytes_AsString(name), name_size);
        text[name_size] = '=';
        memcpy(text + name_size + 1, PyBytes_AsString(value), value_size + 1);
    }
done:
    Py_XDECREF(name);
    Py_XDECREF(value);
    return at;
}

int plan_env(struct nsx_slot **slot, PyObject *env)
{
    if (env == Py_None)
        return env_inherited(slot);
    PyObject *items = PyMapping_Items(env);
    if (!items) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError))
            PyErr_Format(PyExc_TypeError, "env must be a mapping, not %R", Py_TYPE(env));
        return -1;
    }
    const Py_ssize_t count = PyList_Size(items);
    int error = -1;
    uint32_t array = append_array(slot, (size_t)count);
    if (!array)
        goto done;
    for (Py_ssize_t i = 0; i < count; i++) {
        uint32_t at = append_variable(slot, PyList_GetItem(items, i));
        if (!at)
            goto done;
        set_entry(slot, array, (size_t)i, at);
    }
    plan_of(slot)->envp = array;
    plan_of(slot)->envc = (uint32_t)count;
    error = 0;
done:
    Py_DECREF(items);
    return error;
}

/* PATH of the environment that the program will have, as an offset; 0: none. */
static uint32_t find_path(struct nsx_plan *plan)
{
    const uintptr_t *entry = (const uintptr_t *)(void *)((char *)plan + plan->envp);
    for (uint32_t i = 0; i < plan->envc; i++)
        if (strncmp((char *)plan + entry[i], "PATH=", 5) == 0)
            return (uint32_t)entry[i] + 5;
    return 0;
}

/* As os.path.join(directory, name) does. */
static uint32_t append_joined(struct nsx_slot **slot, uint32_t directory, size_t size,
                              PyObject *name)
{
    const size_t name_size = (size_t)PyBytes_Size(name);
    uint32_t at = append(slot, NULL, size + name_size + 2);
    if (!at)
        return 0;
    char *text = (char *)plan_of(slot) + at;
    memcpy(text, (char *)plan_of(slot) + directory, size);
    if (size && text[size - 1] != '/')
        text[size++] = '/';
    memcpy(text + size, PyBytes_AsString(name), name_size + 1);
    return at;
}

/* One candidate for each directory of PATH, as subprocess has it. */
static int search_path(struct nsx_slot **slot, PyObject *name)
{
    uint32_t path = find_path(plan_of(slot));
    if (!path)
        path = append(slot, DEFAULT_PATH, sizeof DEFAULT_PATH);
    if (!path)
        return -1;
    size_t count = 1;
    for (const char *c = (char *)plan_of(slot) + path; *c; c++)
        count += *c == ':';
    uint32_t array = append_array(slot, count);
    if (!array)
        return -1;
    for (size_t i = 0; i < count; i++) {
        const char *text = (char *)plan_of(slot) + path;
        const size_t size = strcspn(text, ":");
        uint32_t at = append_joined(slot, path, size, name);
        if (!at)
            return -1;
        set_entry(slot, array, i, at);
        path += (uint32_t)size + 1;
    }
    plan_of(slot)->execs = array;
    plan_of(slot)->nexecs = (uint32_t)count;
    return 0;
}

int plan_execs(struct nsx_slot **slot, PyObject *executable)
{
    int error = -1;
    PyObject *name = native_fs_bytes(executable);
    if (!name)
        return -1;
    if (!strchr(PyBytes_AsString(name), '/')) {
        error = search_path(slot, name);
    } else {
        uint32_t array = append_array(slot, 1);
        uint32_t at =
            array ? append(slot, PyBytes_AsString(name), (size_t)PyBytes_Size(name) + 1) : 0;
        if (at) {
            set_entry(slot, array, 0, at);
            plan_of(slot)->execs = array;
            plan_of(slot)->nexecs = 1;
            error = 0;
        }
    }
    Py_DECREF(name);
    return error;
}

static int by_child(const void *a, const void *b)
{
    const struct nsx_fd *one = a, *other = b;
    return (one->child > other->child) - (one->child < other->child);
}

static int read_pair(PyObject *pair, struct nsx_fd *fd)
{
    if (!PyTuple_Check(pair) || PyTuple_Size(pair) != 2) {
        PyErr_SetString(PyExc_TypeError, "descriptors come as (child, parent)");
        return -1;
    }
    int child = native_int(PyTuple_GetItem(pair, 0));
    if (child == -1 && PyErr_Occurred())
        return -1;
    int parent = native_int(PyTuple_GetItem(pair, 1));
    if (parent == -1 && PyErr_Occurred())
        return -1;
    if (child < 0 || parent < 0 || child == INT_MAX) {
        PyErr_Format(PyExc_ValueError, "bad file descriptor: %d", child < 0 ? child : parent);
        return -1;
    }
    *fd = (struct nsx_fd){.child = child, .parent = parent, .moved = -1};
    return 0;
}

int plan_fds(struct nsx_slot **slot, PyObject *pairs, PyObject *close_fds)
{
    const int close_rest = PyObject_IsTrue(close_fds);
    const Py_ssize_t count = PyTuple_Size(pairs);
    if (close_rest < 0 || count < 0)
        return -1;
    if (close_rest)
        plan_of(slot)->flags |= NSX_CLOSE_FDS;
    if (count == 0)
        return 0;
    uint32_t at = append(slot, NULL, (size_t)count * sizeof(struct nsx_fd));
    if (!at)
        return -1;
    struct nsx_fd *fd = (struct nsx_fd *)(void *)((char *)plan_of(slot) + at);
    for (Py_ssize_t i = 0; i < count; i++)
        if (read_pair(PyTuple_GetItem(pairs, i), &fd[i]) < 0)
            return -1;
    qsort(fd, (size_t)count, sizeof *fd, by_child);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (i && fd[i].child == fd[i - 1].child) {
            PyErr_Format(PyExc_ValueError, "descriptor %d of the child is given twice",
                         fd[i].child);
            return -1;
        }
        const struct nsx_fd key = {.child = fd[i].parent};
        if (fd[i].parent != fd[i].child && bsearch(&key, fd, (size_t)count, sizeof *fd, by_child))
            fd[i].moved = 0; /* to be filled in by the child */
    }
    plan_of(slot)->fds = at;
    plan_of(slot)->nfds = (uint32_t)count;
    return 0;
}

int plan_joins(struct nsx_slot **slot, PyObject *pairs)
{
    const Py_ssize_t count = PyTuple_Size(pairs);
    if (count <= 0)
        return (int)count;
    uint32_t at = append(slot, NULL, (size_t)count * sizeof(struct nsx_join));
    if (!at)
        return -1;
    struct nsx_join *join = (struct nsx_join *)(void *)((char *)plan_of(slot) + at);
    for (Py_ssize_t i = 0; i < count; i++) {
        struct nsx_fd pair;
        if (read_pair(PyTuple_GetItem(pairs, i), &pair) < 0)
            return -1;
        join[i] = (struct nsx_join){.fd = pair.child, .kind = (uint32_t)pair.parent};
    }
    plan_of(slot)->joins = at;
    plan_of(slot)->njoins = (uint32_t)count;
    return 0;
}

/* Where the child's last look at the tree is to be from: only a path says that, and
 * an unreachable directory has none. */
int plan_cwd(struct nsx_slot **slot)
{
    char path[4096];
    const struct nsx_blob *blob = (const void *)((const char *)plan_of(slot) + plan_of(slot)->blob);
    uint32_t i = 0;
    while (i < blob->nsteps && blob->step[i].op != NSX_OP_reenter)
        i++;
    if (i == blob->nsteps || !getcwd(path, sizeof path) || path[0] != '/')
        return 0;
    uint32_t at = append(slot, path, strlen(path) + 1);
    plan_of(slot)->cwd = at;
    return at ? 0 : -1;
}
