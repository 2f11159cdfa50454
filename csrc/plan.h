/* The plan: all that a child needs, in one block of memory without a pointer in
 * it (offsets only), so that it can be mapped at any address.
 *
 *   struct nsx_plan   the record, and what differs from spawn to spawn
 *   struct nsx_blob   what compile() made of a Sandbox: steps and their strings
 *   argv, environment, paths, descriptors
 *
 * A blob is checked by nsx_blob_check() before it is believed: it comes over
 * the boundary with Python.  This file is shared by parent and child.
 */
#ifndef NSX_PLAN_H
#define NSX_PLAN_H

#include "abi.h"

enum nsx_op {
#define STEP(name, stage, signature) NSX_OP_##name,
#include "steps.def"
#undef STEP
    NSX_OP_COUNT
};

#define NSX_STEP_ARGS 6
#define NSX_BLOB_MAGIC 0x3158534eu /* "NSX1" */
#define NSX_MAX_STEPS 4096

struct nsx_step {
    uint32_t op;                 /* enum nsx_op */
    uint32_t result;             /* of the child: what a later step needs */
    uint64_t arg[NSX_STEP_ARGS]; /* i: the integer; s: offset; b: offset, length */
};

/* Made once from a Sandbox, reused by every spawn.  Offsets from its start. */
struct nsx_blob {
    uint32_t magic;
    uint32_t size;
    uint32_t new_flags; /* CLONE_NEW* that the clone itself makes */
    uint32_t nsteps;
    uint32_t uid_map, uid_map_size; /* lines that the parent writes; size 0: none */
    uint32_t gid_map, gid_map_size;
    struct nsx_step step[];
};

/* What the child reports.  The parent reads it when ctid has become 0. */
struct nsx_record {
    uint32_t ctid;         /* futex; 1 until the child has left this memory (CLEARTID) */
    uint32_t hold;         /* robust futex of a child in the helper; OWNER_DIED when it left */
    uint32_t gate;         /* futex; 1: the id maps are written */
    uint32_t init_ready;   /* futex; 1: the init has let go of every descriptor */
    uint32_t relay;        /* futex; 1: the caller holds the second clone's pidfd */
    uint32_t relay_pid;    /* of the second clone, as the caller sees it; 0: none yet */
    uint32_t relay_mapped; /* 1: its id maps are written: NSX_RELAY_IDS */
    uint32_t unshared;     /* 1: it is in the user namespace whose maps the parent writes */
    uint32_t paused;       /* 1: the child waits at its checkpoint */
    uint32_t resume;       /* futex; 1: go on */
    uint32_t step;         /* the step being run */
    uint32_t failed;       /* 1: that step failed, errno and aux say how */
    int32_t error;
    int32_t inner_pid; /* of the program, as it sees itself */
    int32_t status;    /* init: wait status of the program, when ended is 1 */
    uint32_t ended;
    int32_t aux; /* which part of the step: each step says */
};

/* One descriptor of the child.  Sorted by child. */
struct nsx_fd {
    int32_t child;
    int32_t parent;
    int32_t moved;   /* parent is another's child: pass one moves it here; -1: no */
    int32_t cloexec; /* as it was before it had to live through the helper's exec */
};

/* A descriptor handed to the child: a namespace to join, or a source of a mount. */
struct nsx_join {
    int32_t fd;
    uint32_t kind; /* CLONE_NEW*; 0: nothing to join */
    uint32_t done;
};

enum nsx_init_flag {
    NSX_INIT_PARENT = 1, /* ends when the parent does */
    NSX_INIT_GROUP = 2,  /* the program has a process group of its own */
};

enum nsx_relay_flag {
    NSX_RELAY_CGROUP = 1, /* born in the cgroup */
    NSX_RELAY_IDS = 2,    /* in a user namespace that has the ids of its maker's */
};

enum nsx_caps_flag {
    NSX_CAPS_EXACT = 1,      /* the program has the set, and no more; else ambient ones only */
    NSX_CAPS_ALL = 2,        /* the set is all that the child has */
    NSX_CAPS_KEPT = 4,       /* they were kept over a change of ids */
    NSX_CAPS_SECUREBITS = 8, /* securebits are given */
    NSX_CAPS_NO_GAIN = 16,   /* no_new_privs follows: no exec gains what is bounded */
};

enum nsx_plan_flag {
    NSX_CLOSE_FDS = 1,        /* close what the table does not name, from 3 up */
    NSX_RESET_SIGNALS = 2,    /* the clone could not: CLONE_CLEAR_SIGHAND */
    NSX_ANNOUNCE = 4,         /* the child has memory of its own: no CLEARTID */
    NSX_IN_HELPER = 8,        /* the helper body: hold tells, not ctid */
    NSX_CORE_GUARD = 32,      /* inline: no core of the parent's memory; core[] before exec */
    NSX_SHARED_FDS = 64,      /* inline: the table is the parent's, until the step fds */
    NSX_BORN_IN_CGROUP = 128, /* the clone has put it there: CLONE_INTO_CGROUP */
    NSX_RAISED = 16,          /* capabilities were made ambient for the helper's exec */
};

struct nsx_plan {
    struct nsx_record record;
    uint32_t flags;
    uint32_t blob;          /* offset of struct nsx_blob */
    uint32_t argv, envp;    /* offsets of NULL-terminated arrays of offsets, which */
    uint32_t argc, envc;    /*   the child turns into pointers */
    uint32_t execs, nexecs; /* candidates for the program, as offsets likewise */
    uint32_t fds, nfds;     /* struct nsx_fd */
    uint32_t joins, njoins; /* struct nsx_join */
    uint32_t euid, egid;    /* the caller's, for maps of its own id */
    int32_t parent_pidfd;   /* for a child that waits for the parent; else -1 */
    int32_t init_pid;       /* of a program's init that is no PID 1, as the program sees it */
    int32_t plan_fd;        /* memfd of this plan; -1: inline */
    int32_t cgroup_fd;      /* directory of the cgroup that the child is to be in; -1: none */
    int32_t proc_fd;        /* the caller's own /proc, opened before a join; -1 */
    int32_t helper_fd;      /* the helper's image */
    uint32_t helper_path;   /* the same as a file, for where the fd cannot be executed */
    uint32_t cwd;           /* the caller's working directory, by its path; 0: none */
    uint32_t size;          /* bytes of the plan in use */
    uint32_t page_size;
    uint32_t ambient[2];   /* NSX_RAISED: the sets to go back to */
    uint32_t effective[2]; /* these, and the next two, after the helper's exec */
    uint32_t permitted[2], inheritable[2];
    int32_t landlock_fd;                /* the ruleset; -1: none */
    uint64_t landlock_fs, landlock_net; /* the rights that it limits */
    uint64_t core[2];                   /* RLIMIT_CORE of the program, where the child guards it */
    uint64_t sigmask;                   /* the caller's, restored before exec */
    uint64_t entry;                     /* clone(entry): function and argument */
    uint64_t entry_arg;
    char text[256]; /* of a failure: the missing interpreter, the file system's message */
};

/* The signature of a step, "" if there is no such op. */
const char *nsx_step_signature(uint32_t op);
const char *nsx_step_name(uint32_t op);
int nsx_step_helper_only(uint32_t op);
const char *nsx_step_stage(uint32_t op);

/* 0, or -EINVAL where these bytes are not a blob that a child can run, or not a
 * plan that the helper can.  Parent and helper both; no libc. */
int nsx_blob_check(const void *bytes, size_t size);
int nsx_plan_check(const struct nsx_plan *plan, size_t size);

/* Index of the step that execs the helper; nsteps: none does. */
uint32_t nsx_blob_helper_step(const struct nsx_blob *blob);

#endif
