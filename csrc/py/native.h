/* The boundary: the only files that see Python.h. */
#ifndef NSX_NATIVE_H
#define NSX_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "../parent/helper.h"
#include "../parent/slot.h"

struct native_state {
    struct nsx_pool pool;
    int clone3_missing;
    PyObject *pid, *pidfd, *handle, *usage; /* Owned; names of attributes */
    struct nsx_helper helper;
};

struct native_state *native_state(PyObject *module);

/* What the GIL does for short work on one object; nothing where there is one. */
#ifdef Py_GIL_DISABLED
#define NATIVE_BEGIN(object) Py_BEGIN_CRITICAL_SECTION(object)
#define NATIVE_END() Py_END_CRITICAL_SECTION()
#else
#define NATIVE_BEGIN(object) {
#define NATIVE_END() }
#endif

/* Sets OSError from -errno; returns NULL. */
PyObject *native_raise(int error);

/* -1 with an exception set where it is no int of C's. */
int native_int(PyObject *number);

/* What the init behind a capsule of spawn()'s says; -1 with an exception set. */
struct nsx_report;
int native_child_report(PyObject *capsule, struct nsx_report *report);
void native_child_over(PyObject *capsule); /* that init has been reaped */

/* Is it a capsule of child()'s?  Such an owner then holds the child; init: Stolen,
 * a capsule of spawn()'s or NULL. */
int native_is_child(PyObject *object);
void native_child_started(PyObject *capsule, pid_t pid, int pidfd, PyObject *init);

/* A struct nsx_usage as bytes, for nsext/_usage.py; new reference. */
struct nsx_usage;
PyObject *native_usage(const struct nsx_usage *usage);

/* A timeout in seconds, None: NSX_FOREVER.  -1 with an exception set. */
int64_t native_timeout(PyObject *seconds);

/* str, bytes or PathLike as bytes without a NUL in it; new reference. */
PyObject *native_fs_bytes(PyObject *object);

PyObject *native_pack(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *native_spawn(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *native_finish(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *native_abort(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *native_report(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *native_resume(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *native_clone(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *native_child(PyObject *module, PyObject *none);
PyObject *native_child_wait(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *native_child_signal(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *native_child_state(PyObject *module, PyObject *capsule);
PyObject *native_child_usage(PyObject *module, PyObject *capsule);
PyObject *native_child_discard(PyObject *module, PyObject *capsule);
PyObject *native_adopt(PyObject *module, PyObject *number);
PyObject *native_wait(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *native_send_signal(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *native_capsule_pointer(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *native_unshare(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *native_setns(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *native_resolve(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *native_pidfd_open(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *native_capabilities(PyObject *module, PyObject *none);
PyObject *native_listns(PyObject *module, PyObject *kinds);
PyObject *native_open_ns(PyObject *module, PyObject *id);
PyObject *native_mount(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *native_umount(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *native_probe(PyObject *module, PyObject *row);
PyObject *native_probe_entry(PyObject *module, PyObject *row);
PyObject *native_syscalls(void); /* {name: number} of those that are probed */

#endif
