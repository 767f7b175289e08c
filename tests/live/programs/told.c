/* A program that wants to know of patches. It reads commands, and answers each with one line. */
#include "ipbp.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char heard[4096];
static int mood; /* 1: crash, 2: never return */

__attribute__((noinline)) int value(int x) { return x + 1; }
__attribute__((noinline)) int other(int x) { return x + 2; }

static void hear(const char *when, const struct ipbp_patch *patch)
{
    char *line = malloc(512); /* nobody is in the allocator */
    int size = snprintf(line, 512, "%s %u v%u undo=%u value=%d [%s]", when, patch->number, patch->version,
                        patch->is_undo, value(1), patch->summary);
    for (uint64_t i = 0; i < patch->function_count; i++)
        size += snprintf(line + size, 512 - size, " %s:%d:%d", patch->functions[i].name, (int)patch->functions[i].kind,
                         patch->functions[i].entry == (void *)value && patch->functions[i].code != (void *)value);
    strncat(heard, line, sizeof heard - strlen(heard) - 4);
    strcat(heard, "; ");
    free(line);
}

void ipbp_before_patch(const struct ipbp_patch *patch)
{
    if (mood == 1)
        *(volatile int *)0 = 1;
    while (mood == 2)
        usleep(1000);
    hear("before", patch);
}

static void __attribute__((used)) ipbp_after_patch(const struct ipbp_patch *patch) { hear("after", patch); }

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
        else if (!strncmp(line, "heard ", 6)) {
            puts(heard);
            heard[0] = 0;
        } else if (!strncmp(line, "mood  ", 6))
            printf("%d\n", mood = x);
        fflush(stdout);
    }
    return 0;
}
