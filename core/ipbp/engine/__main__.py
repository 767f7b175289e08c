"""`python -m ipbp.engine`: answers one request at a time until its input ends."""

from __future__ import annotations

import signal
import sys

from ipbp.engine.channel import take_over_standard_streams
from ipbp.engine.garbage import look_seldom
from ipbp.engine.turns import take_short_turns

if __name__ == "__main__":
    # A debugger blocks signals for its own purposes, and its children, the compilers at last, inherit that.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    channel = take_over_standard_streams()
    from ipbp.build.environment import forget_relative_path
    from ipbp.engine.session import serve  # after stdout was moved aside: native libraries print while they load

    forget_relative_path()
    look_seldom()
    take_short_turns()
    sys.exit(serve(channel))
