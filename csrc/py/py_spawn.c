/* spawn() and clone(): from Python objects to a running child. */
#include "native.h"
#include "../parent/spawn.h"
#include "../parent/wait.h"
#include "py_plan.h"

#include <errno.h>

#define MILLISECOND 1000000ll
#define FIRST_SLICE (5 * MILLISECOND)
#define SLICE (50 * MILLISECOND)

static PyObject *result_started(const struct nsx_spawn *spawn)
{
    return Py_BuildValue("(iiO)", (int)spawn->pid, spawn->pidfd, Py_None);
}

/* failure: (kind, step, errno, aux, signal) */
static PyObject *result_failed(const char *kind, const struct nsx_failure *failure)
{
    return Py_BuildValue("(ii(siiii))", 0, -1, kind, failure->step, failure->error, failure->aux,
                         failure->signal);
}

static PyObject *abort_spawn(struct nsx_spawn *spawn, int *step)
{
    PyThreadState *thread = PyEval_SaveThread();
    nsx_parent_abort(spawn, step);
    PyEval_RestoreThread(thread);
    return NULL;
}

/* Waits in slices: a signal that lands before the wait, or on another thread,
 * wakes nobody here, and Ctrl-C shall not wait for a child that hangs. */
static PyObject *run(struct nsx_spawn *spawn, int64_t timeout)
{
    const int64_t deadline = timeout == NSX_FOREVER ? NSX_FOREVER : nsx_now() + timeout;
    enum nsx_state state;
    int64_t slice = FIRST_SLICE < timeout ? FIRST_SLICE : timeout;

    PyThreadState *thread = PyEval_SaveThread();
    state = nsx_parent_start(spawn);
    if (state == NSX_BUSY)
        state = nsx_parent_poll(spawn, slice);
    PyEval_RestoreThread(thread);

    while (state == NSX_BUSY) {
        if (PyErr_CheckSignals() < 0)
            return abort_spawn(spawn, NULL);
        int64_t left = deadline == NSX_FOREVER ? NSX_FOREVER : deadline - nsx_now();
        if (left <= 0) {
            struct nsx_failure failure = {.error = ETIMEDOUT};
            abort_spawn(spawn, &failure.step);
            return result_failed("timeout", &failure);
        }
        thread = PyEval_SaveThread();
        state = nsx_parent_poll(spawn, left < SLICE ? left : SLICE);
        PyEval_RestoreThread(thread);
    }
    if (state == NSX_STARTED)
        return result_started(spawn);
    const struct nsx_failure *failure = &spawn->failure;
    return result_failed(failure->step < 0 ? "clone"
                         : failure->signal ? "killed"
                                           : "step",
                         failure);
}

PyObject *native_spawn(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    struct native_state *state = native_state(module);
    if (count != 7)
        return PyErr_Format(PyExc_TypeError, "spawn() takes 7 arguments");
    const int64_t timeout = native_timeout(args[6]);
    if (timeout < 0)
        return NULL;
    struct nsx_spawn spawn = {.pool = &state->pool, .clone3_missing = &state->clone3_missing};
    spawn.slot = nsx_slot_get(spawn.pool);
    if (!spawn.slot)
        return PyErr_NoMemory();
    if (plan_blob(&spawn.slot, args[0]) < 0 || plan_argv(&spawn.slot, args[1]) < 0 ||
        plan_env(&spawn.slot, args[3]) < 0 || plan_execs(&spawn.slot, args[2]) < 0 ||
        plan_fds(&spawn.slot, args[4], args[5]) < 0) {
        nsx_slot_put(spawn.pool, spawn.slot);
        return NULL;
    }
    return run(&spawn, timeout);
}

PyObject *native_clone(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    struct native_state *state = native_state(module);
    if (count != 5)
        return PyErr_Format(PyExc_TypeError, "clone() takes 5 arguments");
    const unsigned long long entry = PyLong_AsUnsignedLongLong(args[1]);
    if (PyErr_Occurred())
        return NULL;
    const unsigned long long arg = PyLong_AsUnsignedLongLongMask(args[2]);
    if (PyErr_Occurred())
        return NULL;
    const size_t stack_size = PyLong_AsSize_t(args[3]);
    if (PyErr_Occurred())
        return NULL;
    const int64_t timeout = native_timeout(args[4]);
    if (timeout < 0)
        return NULL;
    struct nsx_spawn spawn = {.pool = &state->pool, .clone3_missing = &state->clone3_missing};
    spawn.slot = nsx_slot_new(stack_size, 1);
    if (!spawn.slot)
        return PyErr_NoMemory();
    if (plan_blob(&spawn.slot, args[0]) < 0) {
        nsx_slot_put(spawn.pool, spawn.slot);
        return NULL;
    }
    struct nsx_plan *plan = nsx_slot_plan(spawn.slot);
    plan->flags |= NSX_ANNOUNCE;
    plan->entry = entry;
    plan->entry_arg = arg;
    return run(&spawn, timeout);
}

PyObject *native_capsule_pointer(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != 1 || !PyCapsule_CheckExact(args[0]))
        return PyErr_Format(PyExc_TypeError, "capsule_pointer() takes a PyCapsule");
    const char *name = PyCapsule_GetName(args[0]);
    if (!name && PyErr_Occurred())
        return NULL;
    return PyLong_FromVoidPtr(PyCapsule_GetPointer(args[0], name));
}
