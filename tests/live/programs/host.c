/* A program with a library and with plugins, which it opens and closes as it is told. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include "library.h"

#define OPAQUE(f) ({ __typeof__(&f) p = &f; __asm__ volatile("" : "+r"(p)); p; })

typedef int (*work)(int);

static void *plugin, *other;
static work plugged, others;

__attribute__((noinline)) int own(int x) { return x + 1; }

/* The library calls this one of ours and not its own of the same name. */
int interposed(int x) { return x + 5000; }

static void open_plugin(const char *how) {
    int global = strcmp(how, "global") == 0 ? RTLD_GLOBAL : RTLD_LOCAL;
    if (strcmp(how, "other") == 0) {
        other = dlmopen(LM_ID_NEWLM, PLUGIN, RTLD_NOW);
        others = other ? (work)dlsym(other, "plugin_work") : 0;
        puts(others ? "opened" : dlerror());
        return;
    }
    if (strcmp(how, "deep") == 0) global |= RTLD_DEEPBIND;
    plugin = dlopen(PLUGIN, RTLD_NOW | global);
    plugged = plugin ? (work)dlsym(plugin, "plugin_work") : 0;
    puts(plugged ? "opened" : dlerror());
}

int main(void) {
    char line[256], word[64], how[64];
    while (fgets(line, sizeof line, stdin)) {
        int a = 0;
        if (sscanf(line, "open %63s", how) == 1) {
            open_plugin(how);
        } else if (strncmp(line, "close", 5) == 0) {
            puts(dlclose(plugin) ? dlerror() : "closed");
        } else if (sscanf(line, "%63s %d", word, &a) == 2) {
            if (strcmp(word, "own") == 0) printf("%d\n", OPAQUE(own)(a));
            if (strcmp(word, "twice") == 0) printf("%d\n", twice(a));
            if (strcmp(word, "outer") == 0) printf("%d\n", outer(a));
            if (strcmp(word, "total") == 0) a = add_to_total(a), printf("%d %d\n", a, total);
            if (strcmp(word, "plugin") == 0) printf("%d\n", plugged(a));
            if (strcmp(word, "others") == 0) printf("%d\n", others(a));
        }
        fflush(stdout);
    }
    return 0;
}
