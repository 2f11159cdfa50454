/* The parent's part of a spawn: clone, maps, waiting for exec.  Nothing here
 * needs Python, and all of it may run without the GIL.
 *
 *   start  ->  poll until it returns other than NSX_BUSY  ->  (done)
 *          \-> abort, at any time between
 */
#ifndef NSX_SPAWN_H
#define NSX_SPAWN_H

#include "slot.h"

#include <sys/types.h>

enum nsx_state {
    NSX_BUSY,    /* the set-up goes on */
    NSX_GATED,   /* the child waits for id maps that the caller writes: nsx_parent_open_gate() */
    NSX_PAUSED,  /* it is complete; the child waits for nsx_parent_resume() */
    NSX_STARTED, /* the program runs: pid and pidfd are the caller's */
    NSX_FAILED,  /* nothing is left; failure tells */
};

struct nsx_failure {
    int step;  /* index of the step; -1: the clone itself */
    int error; /* errno; 0: it has ended before it could say: by signal, if that is not 0 */
    int aux;
    int signal;
};

struct nsx_spawn {
    struct nsx_slot *slot; /* owned until STARTED or FAILED; its kind is the body.
                            * With an init owned on: it reports there */
    struct nsx_pool *pool;
    int *clone3_missing; /* remembered where clone3 is ENOSYS */
    pid_t pid;
    int pidfd;
    int parent_pidfd;  /* our own, for a child that waits for us; -1 */
    int inner_pid;     /* of a program that a second clone has brought into a pid namespace */
    int busy;          /* for the caller to note that it has left a BUSY one alone */
    int returns_early; /* the caller may go on while it is BUSY */
    int resumed;
    int lent;       /* the pidfd was handed out: who has it closes it */
    uint32_t owner; /* nsx_pool_process() of whose child it is; a fork has a copy of this */
    /* Of the plan, noted before the clone: from then on its page is the child's to
     * write, and an init's program may be root over the init. */
    uint32_t nsteps;
    int has_init, has_relay, has_filter;
    int relay_has_ids;  /* the first clone writes the second one's id maps */
    int relay_has_gate; /* the gate is the second one's */
    int gate_is_late;   /* it is not there yet, and says when it is */
    int trusted;        /* the init's program gains nothing by the plan */
    int over;           /* for the caller to note that it has reaped the init */
    int gate;           /* index of the step; -1: none */
    int maps_by_caller; /* not by us: it has others write them, newuidmap(1) */
    int gated;          /* the child waits for that */
    int relayed;        /* pid and pidfd are the second clone's */
    struct nsx_failure failure;
    char text[256]; /* that goes with it, as the child has left it; ends with NUL */
};

enum nsx_state nsx_parent_start(struct nsx_spawn *spawn);

/* Waits at most ns nanoseconds. */
enum nsx_state nsx_parent_poll(struct nsx_spawn *spawn, int64_t ns);

/* Let a child go on that was NSX_GATED; then poll again. */
void nsx_parent_open_gate(struct nsx_spawn *spawn);

struct nsx_report {
    int inner_pid; /* of the program, in its own pid namespace; 0: unknown */
    int ended;     /* 1: it has ended with this wait status, says its init */
    int status;
};

/* What a child with a slot of its own, paused or an init, says of its program. */
void nsx_parent_report(struct nsx_spawn *spawn, struct nsx_report *report);

/* Let a paused child go on; then poll again. */
void nsx_parent_resume(struct nsx_spawn *spawn);

/* Let a paused child's memory go, which it may map still; it is the caller's. */
void nsx_parent_forget(struct nsx_spawn *spawn);

/* Kills the child, reaps it and lets everything go; a child that does not die
 * within a second goes to limbo with its memory.  step_reached: where it was. */
void nsx_parent_abort(struct nsx_spawn *spawn, int *step_reached);

#endif
