"""`python -m ipbp.engine`: answers one request at a time until its input ends."""

from __future__ import annotations

import gc
import signal
import sys

from ipbp.engine.channel import take_over_standard_streams

if __name__ == "__main__":
    # A debugger blocks signals for its own purposes, and its children, the compilers at last, inherit that.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    channel = take_over_standard_streams()
    from ipbp.engine.session import serve  # after stdout was moved aside: native libraries print while they load

    # Debug information becomes hundreds of thousands of small objects, none of them garbage in a cycle: by default,
    # looking for such takes as long as reading.
    gc.set_threshold(100_000, 20, 50)
    sys.exit(serve(channel))
