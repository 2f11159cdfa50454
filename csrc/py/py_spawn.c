/* spawn() and clone(): from Python objects to a running child. */
#include "native.h"
#include "../parent/spawn.h"
#include "../parent/wait.h"
#include "py_plan.h"

#include <errno.h>
#include <unistd.h>

#define MILLISECOND 1000000ll
#define FIRST_SLICE (5 * MILLISECOND)
#define SLICE (50 * MILLISECOND)

#define CHILD "nsext.child"

/* The owner has the child before a signal handler can run: what is on the
 * interpreter's stack only is lost to a KeyboardInterrupt.  child: a capsule for
 * one that is paused or busy (then _pidfd is -1) or has an init, else None.
 * Stolen. */
static PyObject *result_started(const struct nsx_spawn *spawn, PyObject *owner, PyObject *child)
{
    if (native_is_child(owner)) {
        native_child_started(owner, spawn->pid, spawn->pidfd, child == Py_None ? NULL : child);
        Py_RETURN_NONE;
    }
    PyObject *pid = PyLong_FromLong(spawn->pid);
    PyObject *pidfd = PyLong_FromLong(spawn->busy ? -1 : spawn->pidfd);
    const struct native_state *state =
        (const void *)((char *)spawn->pool - offsetof(struct native_state, pool));
    int error = !pid || !pidfd || PyObject_SetAttr(owner, state->pid, pid) < 0 ||
                PyObject_SetAttr(owner, state->pidfd, pidfd) < 0 ||
                (child != Py_None && PyObject_SetAttr(owner, state->handle, child) < 0);
    if (!error && spawn->inner_pid) {
        PyObject *inner = PyLong_FromLong(spawn->inner_pid);
        error = !inner || PyObject_SetAttrString(owner, "_inner_pid", inner) < 0;
        Py_XDECREF(inner);
    }
    Py_XDECREF(pid);
    Py_XDECREF(pidfd);
    Py_DECREF(child);
    if (error)
        return NULL;
    Py_RETURN_NONE;
}

/* (kind, step, errno, aux, signal, text) */
static PyObject *result_failed(const char *kind, const struct nsx_failure *failure,
                               const char *text)
{
    return Py_BuildValue("(siiiiy)", kind, failure->step, failure->error, failure->aux,
                         failure->signal, text);
}

static void abort_spawn(struct nsx_spawn *spawn, int *step)
{
    PyThreadState *thread = PyEval_SaveThread();
    nsx_parent_abort(spawn, step);
    PyEval_RestoreThread(thread);
}

/* The pidfd is the caller's, who kills a child that it does not resume; but not
 * that of one that is busy yet. */
static void destroy_child(PyObject *capsule)
{
    struct nsx_spawn *spawn = PyCapsule_GetPointer(capsule, CHILD);
    PyObject *module = PyCapsule_GetContext(capsule);
    if (spawn && spawn->slot && spawn->busy && spawn->owner == nsx_pool_process(spawn->pool))
        abort_spawn(spawn, NULL);
    else if (spawn && spawn->slot)
        nsx_parent_forget(spawn);
    PyMem_Free(spawn);
    Py_XDECREF(module);
}

/* The capsule keeps the module, in whose state the pool lies. */
static PyObject *keep_spawn(struct nsx_spawn *spawn, PyObject *owner, PyObject *module)
{
    struct nsx_spawn *kept = PyMem_Malloc(sizeof *kept);
    if (!kept) {
        abort_spawn(spawn, NULL);
        return PyErr_NoMemory();
    }
    *kept = *spawn;
    PyObject *capsule = PyCapsule_New(kept, CHILD, destroy_child);
    if (!capsule) {
        abort_spawn(spawn, NULL);
        PyMem_Free(kept);
        return NULL;
    }
    PyCapsule_SetContext(capsule, Py_NewRef(module));
    kept->lent = !spawn->busy;
    return result_started(spawn, owner, capsule);
}

static PyObject *finish(struct nsx_spawn *spawn, enum nsx_state state, PyObject *owner,
                        PyObject *module)
{
    if (state == NSX_STARTED && !spawn->slot)
        return result_started(spawn, owner, Py_NewRef(Py_None));
    if (state != NSX_FAILED)
        return keep_spawn(spawn, owner, module);
    const struct nsx_failure *failure = &spawn->failure;
    return result_failed(failure->step < 0 ? "clone"
                         : failure->error  ? "step"
                                           : "ended",
                         failure, spawn->text);
}

/* How long to wait: until deadline, when the child is killed; until patience is
 * over, when the caller is told so and may come again with finish(). */
struct limits {
    int64_t deadline, patience;
};

static struct limits limits_from_now(int64_t timeout, int64_t patience)
{
    struct limits limits = {NSX_FOREVER, NSX_FOREVER};
    if (timeout != NSX_FOREVER)
        limits.deadline = nsx_now() + timeout;
    if (patience != NSX_FOREVER)
        limits.patience = nsx_now() + patience;
    return limits;
}

static int64_t slice_of(const struct limits *limits, int64_t slice)
{
    const int64_t end = limits->deadline < limits->patience ? limits->deadline : limits->patience;
    if (end == NSX_FOREVER)
        return slice;
    const int64_t left = end - nsx_now();
    return left < 0 ? 0 : left < slice ? left : slice;
}

/* One look, of at most ns nanoseconds, at a child that is not done; where it waits at
 * its gate, at who writes its id maps.  0, or -1 with an exception set. */
static int look(struct nsx_spawn *spawn, enum nsx_state *state, int64_t ns, PyObject *maps)
{
    if (*state == NSX_BUSY) {
        PyThreadState *thread = PyEval_SaveThread();
        *state = nsx_parent_poll(spawn, ns);
        PyEval_RestoreThread(thread);
    }
    if (*state != NSX_GATED)
        return 0;
    PyObject *done =
        PyObject_CallFunction(maps, "iid", (int)spawn->pid, spawn->pidfd, (double)ns / 1e9);
    const int written = done ? PyObject_IsTrue(done) : -1;
    Py_XDECREF(done);
    if (written > 0) {
        nsx_parent_open_gate(spawn);
        *state = NSX_BUSY;
    }
    return written < 0 ? -1 : 0;
}

/* Waits in slices: a signal that lands before the wait, or on another thread,
 * wakes nobody here, and Ctrl-C shall not wait for a child that hangs.  maps: what
 * writes the id maps of a child that is NSX_GATED. */
static PyObject *run(struct nsx_spawn *spawn, struct limits limits, int start, PyObject *owner,
                     PyObject *module, PyObject *maps)
{
    enum nsx_state state = spawn->gated ? NSX_GATED : NSX_BUSY;
    const int64_t first = slice_of(&limits, FIRST_SLICE);

    PyThreadState *thread = PyEval_SaveThread();
    if (start)
        state = nsx_parent_start(spawn);
    if (state == NSX_BUSY)
        state = nsx_parent_poll(spawn, first);
    PyEval_RestoreThread(thread);

    int error = state == NSX_GATED ? look(spawn, &state, first, maps) : 0;
    while (error || state == NSX_BUSY || state == NSX_GATED) {
        if (error || PyErr_CheckSignals() < 0) {
            abort_spawn(spawn, NULL);
            return NULL;
        }
        if (limits.deadline != NSX_FOREVER && nsx_now() >= limits.deadline) {
            struct nsx_failure failure = {.error = ETIMEDOUT};
            abort_spawn(spawn, &failure.step);
            return result_failed("timeout", &failure, "");
        }
        if (limits.patience != NSX_FOREVER && nsx_now() >= limits.patience) {
            spawn->busy = 1;
            return keep_spawn(spawn, owner, module);
        }
        error = look(spawn, &state, slice_of(&limits, SLICE), maps);
    }
    spawn->busy = 0;
    return finish(spawn, state, owner, module);
}

enum { PLAN_ITSELF, PLAN_HELPER }; /* what was not to be had: see fail() in _launch.py */

/* The helper's image and its file's path, into the plan. */
static int plan_helper(struct native_state *state, struct nsx_slot **slot, PyObject *helper,
                       struct nsx_failure *failure)
{
    if (helper == Py_None)
        return 0;
    char *data, *path;
    Py_ssize_t size, length;
    if (!PyTuple_Check(helper) || PyTuple_Size(helper) != 2) {
        PyErr_SetString(PyExc_TypeError, "the helper comes as (program, path)");
        return -1;
    }
    if (PyBytes_AsStringAndSize(PyTuple_GetItem(helper, 0), &data, &size) < 0 ||
        PyBytes_AsStringAndSize(PyTuple_GetItem(helper, 1), &path, &length) < 0)
        return -1;
    const struct nsx_program program = {.data = data, .size = (size_t)size, .path = path};
    const int fd = nsx_helper_fd(&state->helper, &program);
    if (fd < 0) {
        failure->error = -fd;
        failure->aux = PLAN_HELPER;
        return -1;
    }
    const uint32_t at = nsx_slot_append(slot, path, (size_t)length + 1);
    if (!at)
        return -1;
    nsx_slot_plan(*slot)->helper_fd = fd;
    nsx_slot_plan(*slot)->helper_path = at;
    return 0;
}

/* Nothing was cloned.  What was missing for the plan is said as all that fails is;
 * anything else is the caller's mistake, and an exception by now. */
static PyObject *result_unplanned(struct nsx_failure failure)
{
    if (!failure.error)
        return NULL;
    PyErr_Clear();
    return result_failed("plan", &failure, "");
}

PyObject *native_spawn(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    struct native_state *state = native_state(module);
    if (count < 11 || count > 13)
        return PyErr_Format(PyExc_TypeError, "spawn() takes 11 to 13 arguments");
    const int cgroup = count > 11 ? native_int(args[11]) : -1;
    PyObject *maps = count > 12 ? args[12] : Py_None;
    if (cgroup == -1 && PyErr_Occurred())
        return NULL;
    const int64_t timeout = native_timeout(args[6]);
    const int64_t patience = timeout < 0 ? -1 : native_timeout(args[9]);
    if (patience < 0)
        return NULL;
    struct nsx_spawn spawn = {.pool = &state->pool, .clone3_missing = &state->clone3_missing};
    spawn.maps_by_caller = maps != Py_None;
    spawn.returns_early = patience != NSX_FOREVER;
    struct nsx_failure failure = {.step = -1, .aux = PLAN_ITSELF};
    spawn.slot = nsx_slot_get(spawn.pool, args[7] == Py_None ? NSX_SLOT_INLINE : NSX_SLOT_MEMFD);
    if (!spawn.slot) {
        failure.error = errno;
        return result_unplanned(failure);
    }
    if (plan_blob(&spawn.slot, args[0]) < 0 || plan_argv(&spawn.slot, args[1]) < 0 ||
        plan_env(&spawn.slot, args[3]) < 0 || plan_execs(&spawn.slot, args[2]) < 0 ||
        plan_fds(&spawn.slot, args[4], args[5]) < 0 || plan_joins(&spawn.slot, args[8]) < 0 ||
        plan_helper(state, &spawn.slot, args[7], &failure) < 0 || plan_cwd(&spawn.slot) < 0) {
        if (spawn.slot->error)
            failure.error = spawn.slot->error;
        nsx_slot_put(spawn.pool, spawn.slot);
        return result_unplanned(failure);
    }
    nsx_slot_plan(spawn.slot)->cgroup_fd = cgroup;
    return run(&spawn, limits_from_now(timeout, patience), 1, args[10], module, maps);
}

/* The child of a capsule, which is used up; NULL with an exception set. */
static struct nsx_spawn *take_child(PyObject *capsule, struct nsx_spawn *spawn)
{
    struct nsx_spawn *kept = PyCapsule_GetPointer(capsule, CHILD);
    if (!kept)
        return NULL;
    /* Of two threads that come for it one has it; and who reads there has done. */
    struct nsx_slot *slot;
    NATIVE_BEGIN(capsule);
    slot = kept->slot;
    kept->slot = NULL;
    *spawn = *kept;
    NATIVE_END();
    if (!slot) {
        PyErr_SetString(PyExc_ValueError, "used up already");
        return NULL;
    }
    spawn->slot = slot;
    return spawn;
}

/* Go on with a child that was busy when patience was over. */
PyObject *native_finish(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    struct nsx_spawn spawn;
    if (count != 5)
        return PyErr_Format(PyExc_TypeError, "finish() takes 5 arguments");
    const int64_t timeout = native_timeout(args[1]);
    const int64_t patience = timeout < 0 ? -1 : native_timeout(args[2]);
    if (patience < 0 || !take_child(args[0], &spawn))
        return NULL;
    return run(&spawn, limits_from_now(timeout, patience), 0, args[3], module, args[4]);
}

/* Kill such a child, and reap it. */
PyObject *native_abort(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    struct nsx_spawn spawn;
    (void)module;
    if (count != 1)
        return PyErr_Format(PyExc_TypeError, "abort() takes 1 argument");
    if (!take_child(args[0], &spawn))
        return NULL;
    abort_spawn(&spawn, NULL);
    Py_RETURN_NONE;
}

/* The capsule is used up, whatever comes of it; where patience is over there is a new
 * one, as from spawn(). */
PyObject *native_resume(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 4)
        return PyErr_Format(PyExc_TypeError, "resume() takes 4 arguments");
    struct nsx_spawn spawn;
    const int64_t timeout = native_timeout(args[1]);
    const int64_t patience = timeout < 0 ? -1 : native_timeout(args[2]);
    if (patience < 0 || !take_child(args[0], &spawn))
        return NULL;
    nsx_parent_resume(&spawn);
    return run(&spawn, limits_from_now(timeout, patience), 0, args[3], module, Py_None);
}

int native_child_report(PyObject *capsule, struct nsx_report *report)
{
    struct nsx_spawn *kept = PyCapsule_GetPointer(capsule, CHILD);
    if (!kept)
        return -1;
    NATIVE_BEGIN(capsule);
    if (kept->slot)
        nsx_parent_report(kept, report);
    NATIVE_END();
    return 0;
}

void native_child_over(PyObject *capsule)
{
    struct nsx_spawn *kept = PyCapsule_GetPointer(capsule, CHILD);
    NATIVE_BEGIN(capsule);
    kept->over = 1;
    NATIVE_END();
}

/* (inner_pid, wait status or None) */
PyObject *native_report(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    struct nsx_report report = {0};
    (void)module;
    if (count != 2)
        return PyErr_Format(PyExc_TypeError, "report() takes 2 arguments");
    if (native_child_report(args[0], &report) < 0)
        return NULL;
    if (args[1] == Py_True)
        native_child_over(args[0]);
    if (!report.ended)
        return Py_BuildValue("(iO)", report.inner_pid, Py_None);
    return Py_BuildValue("(ii)", report.inner_pid, report.status);
}

PyObject *native_clone(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    struct native_state *state = native_state(module);
    if (count != 8)
        return PyErr_Format(PyExc_TypeError, "clone() takes 8 arguments");
    const int cgroup = native_int(args[6]);
    if (cgroup == -1 && PyErr_Occurred())
        return NULL;
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
    spawn.slot = nsx_slot_new(stack_size, NSX_SLOT_SHARED);
    if (!spawn.slot)
        return PyErr_NoMemory();
    if (plan_blob(&spawn.slot, args[0]) < 0) {
        nsx_slot_put(spawn.pool, spawn.slot);
        return NULL;
    }
    struct nsx_plan *plan = nsx_slot_plan(spawn.slot);
    plan->entry = entry;
    plan->entry_arg = arg;
    plan->cgroup_fd = cgroup;
    spawn.maps_by_caller = args[7] != Py_None;
    return run(&spawn, limits_from_now(timeout, NSX_FOREVER), 1, args[5], module, args[7]);
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
