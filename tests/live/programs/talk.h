/* A program that does what it is told on stdin, one command a line, and answers one line each on stdout. */
#ifndef TALK_H
#define TALK_H
#define SCALE 10
struct point { int x, y; };
extern int shared_total;
int area(const struct point *p);
int shape(int kind, int value);
#endif
