/* Paths that do not leave a root. */
#ifndef NSX_RESOLVE_H
#define NSX_RESOLVE_H

/* A descriptor of what path means to a process whose root directory is root:
 * absolute links and ".." lead to it, and no magic link is followed.  flags: of
 * open(2), NSX_O_PATH among them where nothing is to be opened.  Either process;
 * raw system calls only.  -errno. */
long nsx_resolve(long root, const char *path, long flags);

/* The same without openat2(2); with O_CLOEXEC where flags say so. */
long nsx_resolve_slowly(long root, const char *path, long flags);

#endif
