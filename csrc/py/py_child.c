/* A child as its Process holds it: a capsule that owns the pidfd.
 *
 * All that Python would have to run cold after each exec is here: the turn of
 * the one thread that waits, the return code, and closing the pidfd once nobody
 * uses its number any more, which the kernel may give to somebody else's file. */
#include "native.h"
#include "../abi.h"
#include "../parent/spawn.h"
#include "../parent/wait.h"
#include "../sys.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define HELD "nsext.held"
#define OVER 0x80000000u
#define SECOND 1000000000ll

struct held {
    struct nsx_pool *pool;
    PyObject *init; /* Owned; the capsule of a child with an init */
    pid_t pid;
    int pidfd;
    int code;     /* once it is over */
    int measured; /* likewise: is usage filled? */
    struct nsx_usage usage;
    uint32_t users; /* threads that use the pidfd's number; OVER: reaped, no more may come */
    uint32_t turn;  /* to wait for it: 0: free, 1: taken, 2: taken and perhaps awaited */
};

static struct held *held_of(PyObject *capsule)
{
    return PyCapsule_GetPointer(capsule, HELD);
}

static int is_over(struct held *held)
{
    return (__atomic_load_n(&held->users, __ATOMIC_ACQUIRE) & OVER) != 0;
}

/* The pidfd, until leave(); -1: it is over. */
static int enter(struct held *held)
{
    uint32_t users = __atomic_load_n(&held->users, __ATOMIC_RELAXED);
    do {
        if (users & OVER)
            return -1;
    } while (!__atomic_compare_exchange_n(&held->users, &users, users + 1, 1, __ATOMIC_ACQ_REL,
                                          __ATOMIC_RELAXED));
    return held->pidfd;
}

static void leave(struct held *held)
{
    if (__atomic_sub_fetch(&held->users, 1, __ATOMIC_ACQ_REL) == OVER)
        close(held->pidfd);
}

/* By the thread whose turn it is. */
static void set_over(struct held *held, int code)
{
    held->code = code;
    if (__atomic_fetch_or(&held->users, OVER, __ATOMIC_ACQ_REL) == 0)
        close(held->pidfd);
}

/* 1: taken; 0: not, try again or the time is over; -EINTR. */
static int take_turn(struct held *held, int64_t timeout)
{
    const long limit[2] = {(long)(timeout / SECOND), (long)(timeout % SECOND)};
    uint32_t none = 0;
    if (__atomic_compare_exchange_n(&held->turn, &none, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
        return 1;
    if (timeout == 0)
        return 0;
    if (__atomic_exchange_n(&held->turn, 2, __ATOMIC_ACQUIRE) == 0)
        return 1;
    long error = sys_futex(&held->turn, NSX_FUTEX_WAIT, 2, timeout == NSX_FOREVER ? NULL : limit);
    if (error == -EINTR)
        return -EINTR;
    return __atomic_exchange_n(&held->turn, 2, __ATOMIC_ACQUIRE) == 0;
}

static void give_turn(struct held *held)
{
    if (__atomic_exchange_n(&held->turn, 0, __ATOMIC_RELEASE) == 2)
        sys_futex(&held->turn, NSX_FUTEX_WAKE, 1, NULL);
}

/* What the program ended with, where that is in its init's record. */
static int code_of(struct held *held, const struct nsx_end *end)
{
    const int code = end->exited ? end->status : -end->status;
    struct nsx_report report = {0};
    if (held->init)
        native_child_over(held->init);
    if (!held->init || code < 0 || native_child_report(held->init, &report) < 0 || !report.ended)
        return code;
    return WIFSIGNALED(report.status) ? -WTERMSIG(report.status) : WEXITSTATUS(report.status);
}

/* One try.  1: over; 0: not yet; -errno. */
static int try_wait(struct held *held, int64_t timeout)
{
    struct nsx_end end = {0};
    PyThreadState *thread = PyEval_SaveThread();
    const int taken = take_turn(held, timeout);
    const int over = is_over(held);
    int done =
        taken == 1 && !over ? nsx_parent_wait(held->pidfd, timeout, 1, &end, &held->usage) : over;
    PyEval_RestoreThread(thread);
    if (taken != 1)
        return over ? 1 : taken;
    if (done == 1 && !over) {
        held->measured = end.measured;
        set_over(held, code_of(held, &end));
    }
    give_turn(held);
    return done;
}

/* 1: over; 0: it still runs; -1: an exception is set. */
static int wait_held(struct held *held, int64_t timeout)
{
    const int limited = timeout != 0 && timeout != NSX_FOREVER;
    const int64_t deadline = limited ? nsx_now() + timeout : 0;
    while (!is_over(held)) {
        int done = try_wait(held, timeout);
        if (done == 1)
            break;
        /* Nobody waits for a turn of ours here: a signal handler may wait, too. */
        if (done == -EINTR && PyErr_CheckSignals() < 0)
            return -1;
        if (done < 0 && done != -EINTR) {
            native_raise(done);
            return -1;
        }
        if (done == 0 && timeout == 0)
            return 0;
        if (limited) {
            timeout = deadline - nsx_now();
            timeout = timeout > 0 ? timeout : 0;
        }
    }
    return 1;
}

static void warn(const struct held *held)
{
#if PY_VERSION_HEX >= 0x030c0000
    PyObject *raised = PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
#endif
    if (PyErr_ResourceWarning(NULL, 1, "process %d is still running", (int)held->pid) < 0)
        PyErr_WriteUnraisable(NULL);
#if PY_VERSION_HEX >= 0x030c0000
    PyErr_SetRaisedException(raised);
#else
    PyErr_Restore(type, value, traceback);
#endif
}

static void drop(PyObject *capsule)
{
    struct held *held = held_of(capsule);
    PyObject *module = PyCapsule_GetContext(capsule);
    if (!is_over(held)) {
        warn(held);
        nsx_pool_adopt(held->pool, held->pidfd);
    }
    Py_XDECREF(held->init);
    PyMem_Free(held);
    Py_XDECREF(module);
}

PyObject *native_child(PyObject *module, PyObject *none)
{
    (void)none;
    struct held *held = PyMem_Malloc(sizeof *held);
    if (!held)
        return PyErr_NoMemory();
    *held = (struct held){.pool = &native_state(module)->pool, .pidfd = -1, .users = OVER};
    held->usage.begun = nsx_now();
    PyObject *capsule = PyCapsule_New(held, HELD, drop);
    if (!capsule)
        PyMem_Free(held);
    else
        PyCapsule_SetContext(capsule, Py_NewRef(module));
    return capsule;
}

int native_is_child(PyObject *object)
{
    return PyCapsule_IsValid(object, HELD);
}

void native_child_started(PyObject *capsule, pid_t pid, int pidfd, PyObject *init)
{
    struct held *held = held_of(capsule);
    held->pid = pid;
    held->pidfd = pidfd;
    held->init = init;
    __atomic_store_n(&held->users, 0, __ATOMIC_RELEASE);
}

PyObject *native_child_wait(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != 2)
        return PyErr_Format(PyExc_TypeError, "child_wait() takes 2 arguments");
    struct held *held = held_of(args[0]);
    const int64_t timeout = held ? native_timeout(args[1]) : -1;
    if (timeout < 0)
        return NULL;
    const int over = wait_held(held, timeout);
    if (over < 0)
        return NULL;
    if (!over)
        Py_RETURN_NONE;
    return PyLong_FromLong(held->code);
}

PyObject *native_child_signal(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    (void)module;
    if (count != 2)
        return PyErr_Format(PyExc_TypeError, "child_signal() takes 2 arguments");
    struct held *held = held_of(args[0]);
    if (!held)
        return NULL;
    const int number = native_int(args[1]);
    if (number == -1 && PyErr_Occurred())
        return NULL;
    const int pidfd = enter(held);
    if (pidfd < 0)
        Py_RETURN_NONE;
    const int error = nsx_parent_signal(pidfd, number);
    leave(held);
    if (error < 0 && error != -ESRCH) /* ESRCH: ended, and nobody has waited for it yet */
        return native_raise(error);
    Py_RETURN_NONE;
}

PyObject *native_child_state(PyObject *module, PyObject *capsule)
{
    (void)module;
    struct held *held = held_of(capsule);
    if (!held)
        return NULL;
    const int pidfd = is_over(held) ? -1 : held->pidfd;
    return Py_BuildValue("(iiO)", (int)held->pid, pidfd, held->init ? Py_True : Py_False);
}

PyObject *native_usage(const struct nsx_usage *usage)
{
    return PyBytes_FromStringAndSize((const char *)usage, sizeof *usage);
}

PyObject *native_child_usage(PyObject *module, PyObject *capsule)
{
    (void)module;
    struct held *held = held_of(capsule);
    if (!held)
        return NULL;
    if (!is_over(held) || !held->measured)
        Py_RETURN_NONE;
    return native_usage(&held->usage);
}

PyObject *native_child_discard(PyObject *module, PyObject *capsule)
{
    (void)module;
    struct held *held = held_of(capsule);
    if (!held)
        return NULL;
    if (is_over(held))
        Py_RETURN_NONE;
    PyThreadState *thread = PyEval_SaveThread();
    nsx_parent_signal(held->pidfd, SIGKILL);
    const int gone = nsx_parent_reap(held->pidfd, SECOND);
    PyEval_RestoreThread(thread);
    if (!gone) /* stuck in the kernel */
        nsx_pool_adopt(held->pool, fcntl(held->pidfd, F_DUPFD_CLOEXEC, 3));
    set_over(held, -SIGKILL);
    Py_RETURN_NONE;
}

PyObject *native_adopt(PyObject *module, PyObject *number)
{
    const int pidfd = native_int(number);
    if (pidfd == -1 && PyErr_Occurred())
        return NULL;
    nsx_pool_adopt(&native_state(module)->pool, pidfd);
    Py_RETURN_NONE;
}
