extern int total;
int twice(int x), outer(int x), add_to_total(int x), interposed(int x);
