/* A program that wants to know of patches, in C and in C++. It reads commands, and answers each with one line. */
#include "ipbp.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char heard[4096];
static int mood; /* 1: crash, 2: never return; 3 and 4: that after the patch */
struct pair {
    int x, y;
};
static struct pair pair = {7, 9};

__attribute__((noinline)) int value(int x) { return x + 1; }
__attribute__((noinline)) int other(int x) { return x + 2; }
__attribute__((noinline)) int paired(int x) { return x + pair.x; }

static void hear(const char *when, const struct ipbp_patch *patch)
{
    char *line = (char *)malloc(512); /* nobody is in the allocator */
    int size = snprintf(line, 512, "%s %u v%u undo=%u value=%d [%s]", when, patch->number, patch->version,
                        patch->is_undo, value(1), patch->summary);
    for (uint64_t i = 0; i < patch->function_count; i++)
        size += snprintf(line + size, 512 - size, " %s:%d:%d", patch->functions[i].name, (int)patch->functions[i].kind,
                         patch->functions[i].entry == (void *)value && patch->functions[i].code != (void *)value);
    for (uint64_t i = 0; i < patch->type_count; i++)
        size += snprintf(line + size, 512 - size, " +%s", patch->types[i]);
    strncat(heard, line, sizeof heard - strlen(heard) - 4);
    strcat(heard, "; ");
    free(line);
}

static void act(int crash, int hang)
{
    if (mood == crash)
        *(volatile int *)0 = 1;
    while (mood == hang)
        usleep(1000);
}

#ifdef __cplusplus
extern "C" {
#define LOCAL
#else
#define LOCAL static
#endif
void ipbp_before_patch(const struct ipbp_patch *patch)
{
    act(1, 2);
    hear("before", patch);
}

LOCAL void __attribute__((used)) ipbp_after_patch(const struct ipbp_patch *patch)
{
    act(3, 4);
    hear("after", patch);
}
#ifdef __cplusplus
}
#endif

static void *allocate(void *unused)
{
    for (;;) {
        for (int i = 0; i < 100; i++)
            free(malloc(100 + i));
        usleep(500);
    }
    return unused;
}

int main(void)
{
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, allocate, NULL);
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        int x = atoi(line + 6);
        if (!strncmp(line, "value ", 6))
            printf("%d\n", value(x) + 0 * other(x));
        else if (!strncmp(line, "pair  ", 6))
            printf("%d\n", paired(x));
        else if (!strncmp(line, "heard ", 6)) {
            puts(heard);
            heard[0] = 0;
        } else if (!strncmp(line, "mood  ", 6))
            printf("%d\n", mood = x);
        fflush(stdout);
    }
    return 0;
}
