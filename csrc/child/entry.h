/* The one door from the parent's side into the child's. */
#ifndef NSX_ENTRY_H
#define NSX_ENTRY_H

/* Entry point of the child: runs the plan (struct nsx_plan).  Returns the exit
 * status where the program did not start. */
int nsx_child_main(void *plan);

#endif
