/* Calls that are under way while their functions are edited: crashes, an abort, a loop that never ends. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct item {
    int value;
    struct item *next;
};

static int total;

int first(struct item *list, int scale)
{
    int start = 5;
    start += scale;
    int value = list->value;
    return start + value * scale;
}

int sum(struct item *list, int scale, const char *what)
{
    int result = 0;
    for (int i = 0; i < 3; i++) {
        result += list->value * scale;
        list = list->next;
    }
    total += result;
    return result + (int)strlen(what);
}

double mean(double weight, struct item *list, float share)
{
    int *volatile nowhere = NULL;
    return weight * list->value / share + *nowhere;
}

int counted(int n)
{
    int here = total;
    n += 1;
    total += 1;
    *(volatile int *)(long)(n - 6) = here;
    return n;
}

static void require(int is_so, const char *what)
{
    if (!is_so)
        *(volatile const char *volatile *)NULL = what;
}

int checked(int value)
{
    int twice = value * 2;
    require(twice < 10, "small");
    return twice;
}

int asserted(int value)
{
    int twice = value * 2;
    assert(twice < 10);
    return twice;
}

int plain(int value)
{
    int twice = value + value;
    int more = twice + 1;
    return more;
}

static int read_line(char *line)
{
    char one = 0;
    while (one != '\n') {
        if (read(0, &one, 1) != 1)
            return 0;
        *line++ = one;
    }
    *line = 0;
    return 1;
}

int main(void)
{
    struct item last = {3, NULL}, one = {1, &last};
    char line[100];
    int answers = 0;
    while (read_line(line)) {
        int answer = -1;
        if (!strcmp(line, "first\n"))
            answer = first(NULL, 2);
        else if (!strcmp(line, "sum\n"))
            answer = sum(&one, 10, "four");
        else if (!strcmp(line, "mean\n"))
            answer = (int)mean(10.0, &last, 0.5f);
        else if (!strcmp(line, "counted\n"))
            answer = counted(5);
        else if (!strcmp(line, "checked\n"))
            answer = checked(7);
        else if (!strcmp(line, "asserted\n"))
            answer = asserted(7);
        else if (!strcmp(line, "plain\n"))
            answer = plain(20);
        answers++;
        printf("%d\n", answer);
        fflush(stdout);
    }
    return answers == 0;
}
