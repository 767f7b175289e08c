"""Edits of types of C and C++: what must be refused, in which words, and what is harmless."""

from __future__ import annotations

from dataclasses import dataclass

BASE = """
typedef unsigned int id_t_;
struct inner { int x; int y; };
enum colour { RED, GREEN, BLUE };
union either { int i; float f; long l; };
struct client;
typedef int (*handler)(struct client *, int);
struct client {
    int fd;
    unsigned flags : 3;
    unsigned state : 2;
    struct inner pos;
    char name[16];
    enum colour colour;
    union either value;
    struct client *next;
    handler run;
    double rate;
    id_t_ id;
    char kind;
};
struct holder { struct client first; int count; };
typedef struct { int low; int high; } range;
struct client *head;
struct holder holder;
range bounds;
float level;
static int calls;
int use(struct client *c) {
    static long total;
    calls += c->flags;
    total += holder.count + bounds.low + c->fd;
    return c->run(c, (int)total) + (int)level;
}
"""
BASE_CXX = """
struct Shape {
    virtual ~Shape() {}
    virtual int area() const { return width; }
    virtual int edges() const { return 4; }
    int width;
    static int made;
};
struct Named { const char *name; };
struct Square : Shape, Named {
    int area() const override { return width * width; }
    int side;
};
template <typename T> struct Box { T value; int count; };
struct One { int a; };
struct Two { int b; };
struct Both : One, Two {};
Both both;
enum class Level : int { LOW = 1, HIGH = 2 };
namespace deep { struct Point { int x, y; }; }
Square square;
Box<int> box;
Level level;
deep::Point point;
int Shape::made;
int use(Shape *s) { return s->area() + s->edges() + box.count + point.x + (int)level; }
"""


@dataclass(frozen=True)
class Edit:
    """`words`: of the only refusal, "" when there is none. `symbol`: what it names."""

    old: str
    new: str
    symbol: str = ""
    words: str = ""


REFUSED = {
    "a member in front": Edit(
        "int fd;", "int uid; int fd;", "client", "member 'uid' is new, member 'fd' moved from byte 0 to byte 4"
    ),
    "a member at the end": Edit("char kind;\n}", "char kind;\n    long more;\n}", "client", "member 'more' is new"),
    "a member in a hole": Edit("char kind;\n}", "char kind;\n    char more;\n}", "client", "member 'more' is new"),
    "a member gone": Edit("    double rate;\n", "", "client", "moved from byte"),
    "two members swapped": Edit("int x; int y;", "int y; int x;", "inner", "'x' moved from byte 0 to byte 4"),
    "a bit moved": Edit(
        "flags : 3;\n    unsigned state : 2;",
        "state : 2;\n    unsigned flags : 3;",
        "client",
        "'flags' moved from bit 32 to bit 34",
    ),
    "a wider bit-field": Edit("flags : 3", "flags : 4", "client", "member 'flags' had 3 bits and has 4 bits"),
    "a bit-field made whole": Edit(
        "unsigned state : 2", "unsigned state", "client", "'state' had 2 bits and has whole bytes"
    ),
    "a longer array": Edit("char name[16]", "char name[24]", "client", "member 'name' was char[16] and is char[24]"),
    "an array of other shape": Edit(
        "char name[16]", "char name[2][8]", "client", "'name' was char[16] and is char[2][8]"
    ),
    "int to float": Edit("int x; int y;", "float x; int y;", "inner", "'x' was int and is float"),
    "double to long": Edit("double rate", "long rate", "client", "'rate' was double and is long"),
    "int to long": Edit("int count; };", "long count; };", "holder", "'count' was int and is long"),
    "an inner struct grows": Edit("int x; int y; }", "int x; int y; int z; }", "inner", "member 'z' is new"),
    "an enumerator in the middle": Edit(
        "RED, GREEN", "RED, WHITE, GREEN", "colour", "enumerator 'GREEN' was 1 and is 2"
    ),
    "an enumerator's value": Edit("RED, GREEN", "RED, GREEN = 7", "colour", "enumerator 'GREEN' was 1 and is 7"),
    "a larger union": Edit("long l; }", "long l; char c[12]; }", "either", "it had 8 bytes and has 16"),
    "an alternative of another type": Edit("float f; long l", "int f; long l", "either", "'f' was float and is int"),
    "a pointer to something else": Edit(
        "struct client *next", "struct inner *next", "client", "'next' was struct client * and is struct inner *"
    ),
    "a callback that takes more": Edit(
        "struct client *, int)",
        "struct client *, long)",
        "client",
        "member 'run' is of a type 'handler' that means something else",
    ),
    "a typedef made larger": Edit("typedef unsigned int id_t_", "typedef unsigned long id_t_", "client", "member 'id'"),
    "a struct without a tag": Edit("int low; int high;", "long low; int high;", "range", "'low' was int and is long"),
    "another alignment": Edit(
        "struct inner { int x;", "struct inner { _Alignas(16) int x;", "inner", "it had 8 bytes and has 16"
    ),
    "a variable of another type": Edit("float level;", "int level;", "level", "of the type float and is now of int"),
    "a static in a function": Edit(
        "static long total;", "static double total;", "use::total", "of the type long and is now of double"
    ),
}
REFUSED_CXX = {
    "a virtual in front": Edit(
        "virtual int area() const {",
        "virtual int first() const { return 1; }\n    virtual int area() const {",
        "Shape",
        "_ZNK5Shape5firstEv",
    ),
    "a virtual at the end": Edit(
        "{ return 4; }",
        "{ return 4; }\n    virtual int last() const { return 1; }",
        "Shape",
        "the virtual function '_ZNK5Shape4lastEv' is new",
    ),
    "virtuals swapped": Edit(
        "virtual int area() const { return width; }\n    virtual int edges() const { return 4; }",
        "virtual int edges() const { return 4; }\n    virtual int area() const { return width; }",
        "Shape",
        "moved from place 3 to 2",
    ),
    "a base class more": Edit(
        "struct Named { const char *name; };\nstruct Square : Shape, Named",
        "struct Named { const char *name; };\nstruct Extra { int e; };\nstruct Square : Shape, Named, Extra",
        "Square",
        "the base class struct Extra is new",
    ),
    "base classes swapped": Edit(
        "Both : One, Two", "Both : Two, One", "Both", "the base class struct Two moved from byte 4 to byte 0"
    ),
    "a destructor, where there was none": Edit(
        "int x, y; };",
        "int x, y; ~Point() { x = 0; } };",
        "deep::Point",
        "were given the value itself and are given its",
    ),
    "a constructor that copies": Edit(
        "T value; int count; };",
        "T value; int count; Box() {} Box(const Box &other) { count = 0; } };",
        "Box<int>",
        "by value",
    ),
    "what moves no more": Edit(
        "int x, y; };", "int x, y; Point() {} Point(Point &&) = delete; };", "deep::Point", "are given its address"
    ),
    "memory of its own": Edit(
        "int x, y; };",
        "int x, y; void *operator new(unsigned long); void operator delete(void *); };",
        "deep::Point",
        "it has its own operator delete now, it has its own operator new now",
    ),
    "a base class less": Edit(
        "Square : Shape, Named", "Square : Shape", "Square", "the base class struct Named is gone"
    ),
    "a base class grows": Edit("int width;", "int width; long depth;", "Shape", "member 'depth' is new"),
    "an instance of a template": Edit("T value; int count;", "int count; T value;", "Box<int>", "moved"),
    "an enum class": Edit("LOW = 1, HIGH = 2", "LOW = 2, HIGH = 1", "Level", "enumerator 'LOW' was 1 and is 2"),
    "an enum's type": Edit("enum class Level : int", "enum class Level : long", "Level", "it had 4 bytes and has 8"),
    "in a namespace": Edit("int x, y; }; }", "long x, y; }; }", "deep::Point", "'x' was int and is long"),
}
HARMLESS = {
    "a type that is new": Edit("struct holder {", "struct fresh { int a; };\nstruct fresh fresh;\nstruct holder {"),
    "a member with another name": Edit("int count; };", "int number; };\n#define count number\n"),
    "a bit-field with another name": Edit("unsigned state : 2", "unsigned status : 2"),
    "unsigned for signed": Edit("int x; int y; }", "unsigned x; int y; }"),
    "a typedef for what it means": Edit("    id_t_ id;", "    unsigned int id;"),
    "another typedef": Edit("typedef unsigned int id_t_;", "typedef unsigned int key_t_; typedef key_t_ id_t_;"),
    "a qualifier": Edit("int fd;", "volatile int fd;"),
    "a constant pointer target": Edit("struct client *next;", "const struct client *next;"),
    "void for something": Edit("struct client *next;", "void *next;"),
    "one more enumerator at the end": Edit("GREEN, BLUE }", "GREEN, BLUE, BLACK }"),
    "one enumerator less": Edit("GREEN, BLUE }", "GREEN }"),
    "an enumerator with another name": Edit("GREEN, BLUE }", "GREEN, NAVY }"),
    "an alternative that fits": Edit("long l; }", "long l; short s; }"),
    "an alternative gone": Edit("int i; float f; long l;", "int i; long l;"),
    "a last member gone that left a gap": Edit("    id_t_ id;\n    char kind;\n", "    id_t_ id;\n"),
    "a declaration moved": Edit(
        "enum colour { RED, GREEN, BLUE };\nunion either { int i; float f; long l; };",
        "union either { int i; float f; long l; };\n\nenum colour { RED, GREEN, BLUE };",
    ),
    "a comment and empty lines": Edit("struct client {", "\n\n/* a client */\nstruct client {"),
    "a variable that is new": Edit("float level;", "float level; int fresh;"),
    "a variable with a qualifier": Edit("float level;", "volatile float level;"),
    "the body of a function": Edit("calls += c->flags;", "calls += c->flags * 2 + c->state;"),
    "a parameter's name": Edit("struct client *, int)", "struct client *self, int number)"),
    "a constant of another type": Edit(
        "static int calls;",
        "static const long table[] = {1, 2}; static int calls; long *get(void) { return (long *)table; }",
    ),
}
HARMLESS_CXX = {
    "a function that is no virtual": Edit("int width;", "int width;\n    int doubled() const { return 2 * width; }"),
    "a static member": Edit("static int made;", "static int made; static int lost;"),
    "a new override": Edit("    int side;", "    int edges() const override { return 5; }\n    int side;"),
    "a new class": Edit(
        "Square square;",
        "struct Circle : Shape { int area() const override { return 3; } };\nCircle circle;\nSquare square;",
    ),
    "a constructor": Edit("T value; int count; };", "T value; int count; Box() {} Box(const T &v) : value(v) {} };"),
    "a destructor as it was": Edit(
        "int x, y; };", "int x, y; ~Point() = default; Point() {} Point(const Point &) = default; };"
    ),
    "another destructor": Edit("virtual ~Shape() {}", "virtual ~Shape() { made--; }"),
    "class for struct": Edit("struct Named { const char *name; };", "class Named { public: const char *name; };"),
    "private for public": Edit("    int side;", "private:\n    int side;"),
    "another instance of a template": Edit("Box<int> box;", "Box<int> box; Box<long> boxes;"),
    "a type inside of a class": Edit("    int side;", "    struct Part { int p; };\n    int side;"),
}
