/* ipbp.h - for programs that want to know when ipbp patches them. Nothing of it is needed to be patched.
 *
 * A program, or a library whose functions are patched, may have one or both of
 *
 *     void ipbp_before_patch(const struct ipbp_patch *patch);
 *     void ipbp_after_patch(const struct ipbp_patch *patch);
 *
 * They are found by their names, static or not (C++: extern "C"). They are called in one thread while all others are
 * stopped: before the first function is replaced, and when all are. An undo calls them as well.
 *
 *   - What `patch` points to is valid during the call only.
 *   - No thread is inside of malloc or the dynamic loader, so memory may be allocated. Any other lock may be held by
 *     a thread that is stopped: do not wait for one (pthread_mutex_trylock).
 *   - The program stands still until they return. One that crashes, or has not returned after some seconds, is left
 *     where it is, the patch goes on, and `hotpatch` says so.
 */
#ifndef IPBP_H
#define IPBP_H

#include <stdint.h>

enum ipbp_kind { IPBP_CHANGED, IPBP_NEW, IPBP_REMOVED };

struct ipbp_function {
    const char *name;  /* as the linker knows it */
    const char *file;  /* the source that it was compiled from */
    const void *entry; /* what callers and pointers to it use */
    const void *code;  /* where it runs now; 0 when it was removed */
    uint64_t kind;     /* enum ipbp_kind */
};

struct ipbp_patch {
    uint32_t version; /* 1; a larger one has more fields behind these */
    uint32_t number;  /* as `hotpatch status` shows it */
    uint32_t is_undo; /* 1 when the patch is taken back */
    uint32_t reserved;
    uint64_t function_count;
    const struct ipbp_function *functions;
    uint64_t type_count; /* types whose layout changed with the user's consent (--allow-layout) */
    const char *const *types;
    const char *summary; /* "2 changed, 1 new" */
};

#endif
