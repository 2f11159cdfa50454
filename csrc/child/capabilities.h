/* Sets of capabilities as 64-bit masks.  See capget(2), capabilities(7). */
#ifndef NSX_CAPABILITIES_H
#define NSX_CAPABILITIES_H

#include "child.h"

#define NSX_CAPABILITY_VERSION 0x20080522u
#define NSX_CAP_KILL 5
#define NSX_CAP_SETPCAP 8

struct nsx_caps {
    uint64_t effective, permitted, inheritable;
};

/* struct __user_cap_header_struct, and two of __user_cap_data_struct */
struct nsx_caps_raw {
    struct {
        uint32_t version;
        int32_t pid;
    } header;
    struct {
        uint32_t effective, permitted, inheritable;
    } half[2];
};

static inline __attribute__((always_inline)) long child_get_caps(struct nsx_caps *caps)
{
    struct nsx_caps_raw raw = {.header = {NSX_CAPABILITY_VERSION, 0}};
    const long error = sys_capget(&raw.header, raw.half);
    caps->effective = raw.half[0].effective | (uint64_t)raw.half[1].effective << 32;
    caps->permitted = raw.half[0].permitted | (uint64_t)raw.half[1].permitted << 32;
    caps->inheritable = raw.half[0].inheritable | (uint64_t)raw.half[1].inheritable << 32;
    return error;
}

static inline __attribute__((always_inline)) long child_set_caps(const struct nsx_caps *caps)
{
    struct nsx_caps_raw raw = {.header = {NSX_CAPABILITY_VERSION, 0}};
    for (int i = 0; i < 2; i++) {
        raw.half[i].effective = (uint32_t)(caps->effective >> 32 * i);
        raw.half[i].permitted = (uint32_t)(caps->permitted >> 32 * i);
        raw.half[i].inheritable = (uint32_t)(caps->inheritable >> 32 * i);
    }
    return sys_capset(&raw.header, raw.half);
}

#endif
