/* nsext._native: functions and constants, no types, nothing mutable but the
 * module's state.  Multi-phase initialised; see PEP 489. */
#include "native.h"
#include "../plan.h"

/* Bounds of the section with the child's code, from the linker. */
extern const char __start_nsx_child[] __attribute__((visibility("hidden")));
extern const char __stop_nsx_child[] __attribute__((visibility("hidden")));

struct native_state *native_state(PyObject *module)
{
    return PyModule_GetState(module);
}

static PyObject *step_table(void)
{
    PyObject *table = PyDict_New();
    for (uint32_t op = 0; table && op < NSX_OP_COUNT; op++) {
        PyObject *row = Py_BuildValue("(ss)", nsx_step_stage(op), nsx_step_signature(op));
        if (!row || PyDict_SetItemString(table, nsx_step_name(op), row) < 0)
            Py_CLEAR(table);
        Py_XDECREF(row);
    }
    return table;
}

static PyObject *helper_steps(void)
{
    PyObject *names = PyFrozenSet_New(NULL);
    for (uint32_t op = 0; names && op < NSX_OP_COUNT; op++) {
        if (!nsx_step_helper_only(op))
            continue;
        PyObject *name = PyUnicode_FromString(nsx_step_name(op));
        if (!name || PySet_Add(names, name) < 0)
            Py_CLEAR(names);
        Py_XDECREF(name);
    }
    return names;
}

static int add(PyObject *module, const char *name, PyObject *value)
{
    int error = value ? PyModule_AddObjectRef(module, name, value) : -1;
    Py_XDECREF(value);
    return error;
}

static int native_exec(PyObject *module)
{
    struct native_state *state = native_state(module);
    *state = (struct native_state){
        .pid = PyUnicode_InternFromString("pid"),
        .pidfd = PyUnicode_InternFromString("_pidfd"),
        .handle = PyUnicode_InternFromString("_handle"),
        .usage = PyUnicode_InternFromString("_ended"),
    };
    if (!state->pid || !state->pidfd || !state->handle || !state->usage)
        return -1;
    if (add(module, "STEPS", step_table()) < 0 || add(module, "HELPER_STEPS", helper_steps()) < 0)
        return -1;
    if (add(module, "SYSCALLS", native_syscalls()) < 0)
        return -1;
    return add(module, "CHILD_TEXT",
               Py_BuildValue("(KK)", (unsigned long long)(uintptr_t)__start_nsx_child,
                             (unsigned long long)(uintptr_t)__stop_nsx_child));
}

static void native_free(void *module)
{
    struct native_state *state = PyModule_GetState(module);
    if (!state)
        return;
    nsx_pool_clear(&state->pool), nsx_helper_close(&state->helper);
    Py_CLEAR(state->pid);
    Py_CLEAR(state->pidfd);
    Py_CLEAR(state->handle);
    Py_CLEAR(state->usage);
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef methods[] = {
    {"pack", FAST(native_pack), METH_FASTCALL,
     "pack(new_flags, steps, uid_map, gid_map) -> bytes\n\nThe static part of a plan."},
    {"spawn", FAST(native_spawn), METH_FASTCALL,
     "spawn(blob, argv, executable, env, fds, close_fds, timeout, helper, joins, patience, owner,\n"
     "cgroup=-1, maps=None) -> failure or None\n\n"
     "owner: what child() returned, or what gets pid, _pidfd and _handle.\n"
     "maps: maps(pid, pidfd, seconds) -> done?  Writes the id maps in our place."},
    {"finish", FAST(native_finish), METH_FASTCALL,
     "finish(child, timeout, patience, owner, maps) -> as spawn()"},
    {"abort", FAST(native_abort), METH_FASTCALL, "abort(child): kill and reap it"},
    {"report", FAST(native_report), METH_FASTCALL,
     "report(child, over) -> (inner_pid, wait status or None)\n\nover: it has been reaped."},
    {"resume", FAST(native_resume), METH_FASTCALL,
     "resume(child, timeout, patience, owner) -> as spawn()"},
    {"clone", FAST(native_clone), METH_FASTCALL,
     "clone(blob, entry, arg, stack_size, timeout, owner, cgroup, maps) -> as spawn()"},
    {"child", native_child, METH_NOARGS, "child() -> what holds a child for a Process"},
    {"child_wait", FAST(native_child_wait), METH_FASTCALL,
     "child_wait(child, timeout) -> int | None\n\nAs wait(), for any number of threads."},
    {"child_signal", FAST(native_child_signal), METH_FASTCALL,
     "child_signal(child, sig)\n\nUnless it has been waited for."},
    {"child_state", native_child_state, METH_O, "child_state(child) -> (pid, pidfd, has_init)"},
    {"child_usage", native_child_usage, METH_O, "child_usage(child) -> bytes | None: its usage"},
    {"child_discard", native_child_discard, METH_O, "child_discard(child): kill and reap it"},
    {"adopt", native_adopt, METH_O, "adopt(pidfd): reap and close it, at the latest by a spawn()"},
    {"wait", FAST(native_wait), METH_FASTCALL,
     "wait(pidfd, timeout, owner) -> int | None\n\nReap; the return code, None: still running.\n"
     "owner gets the usage as _ended."},
    {"send_signal", FAST(native_send_signal), METH_FASTCALL, "pidfd_send_signal(2)"},
    {"capsule_pointer", FAST(native_capsule_pointer), METH_FASTCALL,
     "The address in a PyCapsule, whatever its name."},
    {"unshare", FAST(native_unshare), METH_FASTCALL, "unshare(2) of the calling thread"},
    {"setns", FAST(native_setns), METH_FASTCALL, "setns(2) of the calling thread"},
    {"resolve", FAST(native_resolve), METH_FASTCALL,
     "resolve(root, path, flags) -> descriptor\n\nopenat2(2) with RESOLVE_IN_ROOT."},
    {"capabilities", native_capabilities, METH_NOARGS,
     "capabilities() -> int\n\nThe calling thread's effective set: capget(2)."},
    {"pidfd_open", FAST(native_pidfd_open), METH_FASTCALL, "pidfd_open(2)"},
    {"listns", native_listns, METH_O,
     "listns(kinds) -> [64-bit id, ...]\n\nlistns(2), since Linux 6.19; kinds 0: all."},
    {"open_ns", native_open_ns, METH_O,
     "open_ns(64-bit id) -> descriptor of a namespace, since Linux 6.19"},
    {"mount", FAST(native_mount), METH_FASTCALL, "mount(source, target, flags): mount(2)"},
    {"probe", native_probe, METH_O,
     "probe(row)\n\nRun the system calls in a buffer of struct nsx_probe, here and now."},
    {"probe_entry", native_probe_entry, METH_O,
     "probe_entry(row) -> (entry, argument) for clone(): the same in a child"},
    {"umount", FAST(native_umount), METH_FASTCALL, "umount(target, flags): umount2(2)"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, native_exec},
#ifdef Py_MOD_PER_INTERPRETER_GIL_SUPPORTED
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_MOD_GIL_NOT_USED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "nsext._native",
    .m_size = sizeof(struct native_state),
    .m_methods = methods,
    .m_slots = slots,
    .m_free = native_free,
};

PyMODINIT_FUNC PyInit__native(void);

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}
