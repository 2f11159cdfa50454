#include "send.h"

#define SOL_SOCKET_ 1
#define SCM_RIGHTS_ 1
#define MSG_NOSIGNAL_ 0x4000

/* struct msghdr and its control message, on 64-bit ABIs. */
struct message {
    const void *name;
    uint64_t name_size;
    const void *vector;
    uint64_t vectors;
    const void *control;
    uint64_t control_size;
    uint64_t flags;
};

struct control {
    uint64_t size;
    int32_t level, type;
    int32_t fd[NSX_SEND_MAX + 1]; /* a padding */
};

NSX_CHILD_CODE long nsx_helper_send(long socket, const int32_t *fds, uint32_t count)
{
    struct {
        const void *data;
        uint64_t size;
    } byte = {"", 1};
    struct control control = {.level = SOL_SOCKET_, .type = SCM_RIGHTS_};
    struct message message = {.vector = &byte, .vectors = 1, .control = &control};
    for (uint32_t i = 0; i < count; i++)
        control.fd[i] = fds[i];
    control.size = 16 + count * sizeof *fds;
    message.control_size = (control.size + 7) & ~(uint64_t)7;
    return nsx_syscall(__NR_sendmsg, socket, NSX_P(&message), MSG_NOSIGNAL_, 0, 0, 0);
}
