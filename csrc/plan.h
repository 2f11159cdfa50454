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
    uint32_t op; /* enum nsx_op */
    uint32_t reserved;
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
    uint32_t ctid;   /* futex; 1 until the child has left this memory (CLEARTID) */
    uint32_t gate;   /* futex; 1: the id maps are written */
    uint32_t step;   /* the step being run */
    uint32_t failed; /* 1: that step failed, errno and aux say how */
    int32_t error;
    int32_t aux; /* which part of the step: each step says */
};

/* One descriptor of the child.  Sorted by child. */
struct nsx_fd {
    int32_t child;
    int32_t parent;
    int32_t moved; /* parent is another's child: pass one moves it here; -1: no */
};

enum nsx_plan_flag {
    NSX_CLOSE_FDS = 1,     /* close what the table does not name, from 3 up */
    NSX_RESET_SIGNALS = 2, /* the clone could not: CLONE_CLEAR_SIGHAND */
    NSX_ANNOUNCE = 4,      /* the child has memory of its own: no CLEARTID */
};

struct nsx_plan {
    struct nsx_record record;
    uint32_t flags;
    uint32_t blob;          /* offset of struct nsx_blob */
    uint32_t argv, envp;    /* offsets of NULL-terminated arrays of offsets, which */
    uint32_t argc, envc;    /*   the child turns into pointers */
    uint32_t execs, nexecs; /* candidates for the program, as offsets likewise */
    uint32_t fds, nfds;     /* struct nsx_fd */
    uint32_t euid, egid;    /* the caller's, for maps of its own id */
    int32_t parent_pidfd;   /* for a child at its gate; else -1 */
    uint32_t reserved;
    uint64_t sigmask; /* the caller's, restored before exec */
    uint64_t entry;   /* clone(entry): function and argument */
    uint64_t entry_arg;
};

/* The signature of a step, "" if there is no such op. */
const char *nsx_step_signature(uint32_t op);
const char *nsx_step_name(uint32_t op);
const char *nsx_step_stage(uint32_t op);

/* 0, or -EINVAL where these bytes are not a blob that a child can run. */
int nsx_blob_check(const void *bytes, size_t size);

#endif
