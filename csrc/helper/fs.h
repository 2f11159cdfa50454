/* What the files of the file system's steps share.  They run in the helper,
 * after the mount namespace is new and its mounts are private, and before the
 * descriptors of the program are laid out. */
#ifndef NSX_FS_H
#define NSX_FS_H

#include "../child/child.h"
#include "../child/resolve.h"
#include "../sys_mount.h"

#define EPERM_ 1
#define ENOENT_ 2
#define E2BIG_ 7
#define EAGAIN_ 11
#define EBUSY_ 16
#define EEXIST_ 17
#define EXDEV_ 18
#define ENOTDIR_ 20
#define EINVAL_ 22
#define EROFS_ 30
#define ENAMETOOLONG_ 36
#define ENOSYS_ 38

#define PATH_SIZE 4096

/* Parts of these steps, reported as aux; _describe_mounts.py has the words. */
enum nsx_fs_part {
    PART_TARGET = 1,    /* find the mount point */
    PART_MISSING = 2,   /* it is missing, and would have to be made in the host's tree */
    PART_MAKE = 3,      /* make it */
    PART_FLAGS = 4,     /* set the mount's flags */
    PART_ATTACH = 5,    /* put it in its place */
    PART_CLONE = 6,     /* open_tree(2) */
    PART_OPTION = 7,    /* fsconfig(2) of an option */
    PART_CREATE = 8,    /* the file system itself */
    PART_WRITE = 9,     /* content */
    PART_SCRATCH = 10,  /* a tmpfs that is needed for a moment */
    PART_SUBMOUNT = 11, /* a mount below what is to be a layer */
    PART_PROC = 12,     /* the caller's /proc */
    PART_ENTER = 13,    /* fchdir(2), chdir(2) */
    PART_DETACH = 14,   /* umount2(2) of the old root */
    PART_REACH = 15,    /* getcwd(2) says that the directory lies outside the root */
    PART_ROOT = 16,     /* the mount point is the root directory itself */
    PART_MOVED = 17,    /* what is mounted was renamed meanwhile */
    PART_LIMIT = 18,    /* RLIMIT_NOFILE */
    PART_BELOW = 19,    /* what is mounted below */
};

enum nsx_fs_flag {
    FS_RECURSIVE = 1, /* with what is mounted below */
    FS_OPTIONAL = 2,  /* nothing is done where it is missing */
    FS_PLAIN = 4,     /* source: no mount of it is wanted, only the file */
    FS_HANDED = 8,    /* source: the caller's descriptor, by its place in the table */
    FS_OWN = 16,      /* mount_fs: made by this child, so mount points may be made in it */
};

/* What a source step leaves in its result, if not a descriptor. */
#define SOURCE_MISSING 0xffffffffu

/* A result of a file system's step, by which its directories are known again. */
static inline __attribute__((always_inline)) uint32_t fs_device(const struct nsx_statx *status)
{
    return status->dev_major << 20 | (status->dev_minor & 0xfffff);
}

static inline __attribute__((always_inline)) int fs_is_directory(const struct nsx_statx *status)
{
    return (status->mode & NSX_S_IFMT) == NSX_S_IFDIR;
}

/* The steps in the plan, which these write their results to. */
static inline __attribute__((always_inline)) struct nsx_blob *fs_blob(const struct nsx_child *child)
{
    return child_at(child->plan, child->plan->blob);
}

/* The result of the n-th source; its step is one of a row. */
uint32_t fs_source(const struct nsx_child *child, uint64_t n);

/* A descriptor of a target inside the root; where it is missing it is made, in
 * file systems of this child's own making only. */
long fs_target(struct nsx_child *child, const char *path, int directory);

/* 0, or -EBUSY where fd is the root directory itself: what is put on top of that
 * would be seen by nobody. */
long fs_check_target(struct nsx_child *child, long fd);

/* The directory in which path's last component lies or is to be made; name: that. */
long fs_parent(struct nsx_child *child, const char *path, char name[256]);

/* Is this directory on a file system of this child's own making? */
int fs_is_own(const struct nsx_child *child, const struct nsx_statx *status);

/* ---- mounts that have no place yet: seen by nobody, known by their descriptor.
 *
 * Where one of the newer calls is missing they do have one: in the workshop, a
 * tmpfs on top of the root directory, which no path leads to either. */

/* Finds out, and opens the workshop where there has to be one. */
long fs_begin(struct nsx_child *child);
long fs_end(struct nsx_child *child);

/* Nothing in it can belong to who has no id in its user namespace: the step fs_ids,
 * which comes after the sources, opens it then, and clones what they have opened. */
int fs_is_deferred(const struct nsx_child *child);
long fs_open_shop(struct nsx_child *child);
long fs_clone_sources(struct nsx_child *child);

/* One of what fd is, a file or a directory. */
long fs_clone(struct nsx_child *child, long fd, int recursive);

/* One of a new file system.  Options: each a string that ends with NUL. */
struct fs_new {
    const char *type, *source, *options;
    size_t options_size;
    uint32_t flags;
};
long fs_make(struct nsx_child *child, const struct fs_new *fs);

/* Puts one in its place, for good; to: -1: as the new root. */
long fs_attach(struct nsx_child *child, long mount, long to);

/* Flags, and propagation where it is not 0, of a mount by its own descriptor. */
struct fs_change {
    uint32_t set, clear, propagation;
    int recursive;
};
long fs_change(struct nsx_child *child, long mount, const struct fs_change *change);

/* The mount that is on top of the root directory, which no other path leads to. */
long fs_top_of_root(void);
void fs_set_root(struct nsx_child *child, long fd);

/* A path below the caller's /proc to a descriptor, for calls that know paths only;
 * fs_by_number() makes that /proc the working directory, too. */
struct fs_number {
    char path[32];
};
void fs_number(long fd, struct fs_number *number);
long fs_by_number(struct nsx_child *child, long fd, struct fs_number *number);

/* mount(2) of what both are known by descriptors only.  source: -1: name; target:
 * -1: on top of the root directory. */
struct fs_call {
    long source, target;
    const char *name, *type, *data;
    long flags;
};
long fs_mount(struct nsx_child *child, const struct fs_call *call);

/* Calls visit for each mount below a directory, with its path relative to that,
 * "/a/b".  direct: not for those that lie on another of them. */
struct fs_visit {
    struct nsx_child *child;
    long directory;
    int direct;
    const void *data;
    long (*visit)(const struct fs_visit *visit, const char *path, uint64_t id);
};
long fs_below(const struct fs_visit *visit);

/* 1 if another mount lies over that mount, or over what leads to it; 0, -errno. */
long fs_is_hidden(struct nsx_child *child, uint64_t id);

/* 0 if that mount is its own parent, as an initramfs is; 1; -errno. */
long fs_has_parent(struct nsx_child *child, uint64_t id);

/* A tmpfs for a moment, hidden on top of the root directory; fs_scratch_end()
 * lets it go, where what was made of it lives on. */
long fs_scratch(struct nsx_child *child);
long fs_scratch_end(struct nsx_child *child, long fd);

/* What a step fails with is its own error, not one of cleaning up after it. */
static inline __attribute__((always_inline)) long fs_first(struct nsx_child *child, long error,
                                                           long later, int32_t aux)
{
    if (error >= 0)
        return later;
    child->aux = aux;
    return error;
}

#endif
