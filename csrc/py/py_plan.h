/* Filling a slot's plan from Python objects, under the GIL, before any clone:
 * lists that other threads change meanwhile are read once, here. */
#ifndef NSX_PY_PLAN_H
#define NSX_PY_PLAN_H

#include "native.h"

/* Each returns 0, or -1 with an exception set. */
int plan_blob(struct nsx_slot **slot, PyObject *blob);
int plan_argv(struct nsx_slot **slot, PyObject *args);
int plan_env(struct nsx_slot **slot, PyObject *env_or_none);
int plan_execs(struct nsx_slot **slot, PyObject *executable); /* after plan_env */
int plan_fds(struct nsx_slot **slot, PyObject *pairs, PyObject *close_fds);

int plan_cwd(struct nsx_slot **slot);
int plan_joins(struct nsx_slot **slot, PyObject *pairs); /* (fd, CLONE_NEW*) */

#endif
