/* The helper's robust futex: how its parent learns of exec and of death alike.
 *
 * When a process leaves its memory the kernel goes through its list of robust
 * futexes and marks each that carries its tid: OWNER_DIED, and a wake.  Ours has
 * one entry; the word is the plan's, and waiters are always assumed.  Tried as
 * PID 1 and in a new time namespace, too.  See get_robust_list(2).
 */
#include "../child/child.h"

struct robust_list {
    struct robust_list *next;
};

struct robust_list_head {
    struct robust_list list;
    long futex_offset;
    struct robust_list *pending;
};

/* The helper's own memory, at the same address in its forks; unused inline. */
static struct {
    struct robust_list_head head;
    struct robust_list entry;
} robust;

/* The parent has guessed our tid and may be waiting with it; the wake at the end
 * of it all does not depend on the guess. */
NSX_CHILD_CODE void nsx_child_hold(struct nsx_plan *plan)
{
    uint32_t *word = &plan->record.hold;
    robust.entry.next = &robust.head.list;
    robust.head.list.next = &robust.entry;
    robust.head.futex_offset = (char *)word - (char *)&robust.entry;
    robust.head.pending = NULL;
    plan->record.inner_pid = (int32_t)sys_gettid();
    __atomic_store_n(word, (uint32_t)plan->record.inner_pid | NSX_FUTEX_WAITERS, __ATOMIC_RELEASE);
    sys_set_robust_list(&robust.head, sizeof robust.head);
}
