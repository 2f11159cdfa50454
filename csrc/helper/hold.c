/* The helper's robust futex: how its parent learns of exec and of death alike.
 *
 * When a process leaves its memory the kernel goes through its list of robust
 * futexes and marks each that carries its tid: OWNER_DIED, and a wake.  Ours has
 * one entry; the word is the plan's, and waiters are always assumed.  Tried as
 * PID 1 and in a new time namespace, too.  See get_robust_list(2).
 */
#include "../child/child.h"

/* The parent has guessed our tid and may be waiting with it; the wake at the end
 * of it all does not depend on the guess. */
NSX_CHILD_CODE long nsx_child_hold(struct nsx_plan *plan, struct nsx_hold *hold)
{
    uint32_t *word = &plan->record.hold;
    hold->entry.next = &hold->list;
    hold->list.next = &hold->entry;
    hold->offset = (char *)word - (char *)&hold->entry;
    hold->pending = NULL;
    const long tid = sys_gettid();
    if (tid < 0)
        return tid;
    plan->record.inner_pid = (int32_t)tid;
    __atomic_store_n(word, (uint32_t)plan->record.inner_pid | NSX_FUTEX_WAITERS, __ATOMIC_RELEASE);
    return sys_set_robust_list(hold, offsetof(struct nsx_hold, entry));
}
