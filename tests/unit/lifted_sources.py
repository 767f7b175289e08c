"""What the tests of lifting lift: two files with static variables and functions of one name."""

WORK = r"""
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
extern int outside; extern __thread int per_thread;
int shared = 7; static int count = 3; static const char *words[] = {"alpha", "beta", "gamma"};
static const double table[] = {1.5, 2.5, 3.5};
__attribute__((noinline)) static int helper(int n) { static int calls; calls++; return n + count; }
__attribute__((noinline)) int pick(int n) {
  static int calls; calls += 2;
  switch (n) { case 0: return helper(1); case 1: return 7 + calls; case 2: return shared; case 3: return n * 3;
    case 4: return outside; case 5: return per_thread; case 6: return puts("six"); case 7: return 99; }
  return -1;
}
double work(int n) {
  printf("work %d %s\n", n, words[n % 3]); shared += (int)strlen(words[n % 3]) + pick(n) + abs(n);
  return table[n & 1] * 2.25 + shared;
}
void *addresses[] = {&shared, (void *)pick, &count};
int (*chosen(void))(int) { return shared ? pick : helper; }
"""
OTHER = r"""
int outside = 5; __thread int per_thread = 6;
static int count = 9;
__attribute__((noinline)) static int helper(int n) { static int calls; return n * count + calls++; }
int other(int n) { return helper(n); }
"""
