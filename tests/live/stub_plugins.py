"""Plugins that only pretend, for tests of what drives the debuggers. The N of `undo N` chooses how they misbehave."""

GDB = """
import gdb, json, os, time
class Hotpatch(gdb.Command):
    def __init__(self):
        super().__init__("hotpatch", gdb.COMMAND_USER)
    def invoke(self, words, tty):
        act(words, gdb.write, lambda: False)
Hotpatch()
"""

LLDB = """
import lldb, json, os, time
class Hotpatch:
    def __init__(self, debugger, unused):
        pass
    def __call__(self, debugger, words, context, result):
        act(words, lambda text: print(text, end="", flush=True), debugger.InterruptRequested)
def __lldb_init_module(debugger, unused):
    debugger.HandleCommand("command script add -o -c lldb_stub.Hotpatch hotpatch")
"""

ACT = """
def act(words, write, stop):
    case = words.split()[-1]
    say = lambda row: write(json.dumps(row, separators=(",", ":")) + "\\n")
    if case == "--our-stop":
        write("compiling\\n")
        say({"outcome": "undone", "patches": [], "words": words, "padding": "x" * 10000})
    elif case == "1":
        say({"outcome": "unchanged"})
    elif case == "2":  # busy until it is interrupted or told to end
        open(os.environ["IPBP_TEST_FLAG"], "w").close()
        while not stop() and not os.path.exists(os.environ["IPBP_TEST_FLAG"] + ".end"):
            time.sleep(0.05)
    elif case == "3":
        os.kill(os.getpid(), 9)
"""
