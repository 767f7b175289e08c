"""What the engine answers, verb by verb. Every error becomes one clear answer; the process goes on."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ipbp import __version__
from ipbp.afterwards import answered_first
from ipbp.build.notes import write_whole
from ipbp.build.store import user_store
from ipbp.build.trust import agree
from ipbp.engine.channel import Channel
from ipbp.engine.garbage import keep_modules
from ipbp.engine.put_off import finish, require_finished, will_be_finished
from ipbp.engine.together import Together
from ipbp.engine.watching import follow, saves
from ipbp.errors import IpbpError, Refused
from ipbp.formats.elf_file import load_lief
from ipbp.host.ended import ended
from ipbp.host.shortage import shortage
from ipbp.pipeline.doctor import examine
from ipbp.pipeline.order import make_plan
from ipbp.pipeline.page import page
from ipbp.pipeline.request import Request
from ipbp.pipeline.save import save_patched
from ipbp.pipeline.side_by_side import sides_for
from ipbp.protocol import PROTOCOL_VERSION

Answer = dict[str, Any]


_together = Together()
_KEEP_SECONDS = 90 * 86400
_KEEP_BYTES = 4 << 30


def serve(channel: Channel) -> int:
    """Answer requests until the plugin goes away."""
    with contextlib.suppress(IpbpError, OSError):  # whoever needs the store is told
        user_store().prune((), _KEEP_BYTES, _KEEP_SECONDS)
    load_lief()
    keep_modules()
    while True:
        with answered_first() as jobs:
            if not _answer_next(channel):
                return 0
        finish(jobs, _shown)


def _answer_next(channel: Channel) -> bool:
    """False when there is no request any more."""
    try:
        request = channel.next_request()
        if request is None:
            return False
        channel.answer(_dispatch(channel, request))
    except Refused as refused:
        channel.fail({**refused.to_json(), "refusals": [r.to_json() for r in refused.refusals]})
    except Exception as error:  # the one place: a bug costs this request, and is shown as what it is
        channel.fail(_shown(error).to_json())
    return True


def _shown(error: Exception) -> IpbpError:
    if isinstance(error, IpbpError):
        return error
    known = shortage(error) or ended(error)
    if known is None:
        traceback.print_exc(file=sys.stderr)
    return known if known is not None else _bug(error)


def _dispatch(channel: Channel, request: dict[str, Any]) -> Answer:
    verb, params = request.get("verb", ""), request.get("params", {})
    if not isinstance(verb, str) or verb not in VERBS or not isinstance(params, dict):
        raise IpbpError("protocol", f"the engine does not know the request {verb!r}", "Reinstall ipbp.")
    return VERBS[verb](channel, params)


def hello(channel: Channel, params: Answer) -> Answer:
    """Who the engine is; the plugin checks the protocol's version."""
    return {
        "protocol": PROTOCOL_VERSION,
        "version": __version__,
        "python": platform.python_version(),
        "pid": os.getpid(),
    }


def plan(channel: Channel, params: Answer) -> Answer:
    """The whole way to a plan; nothing is written to the inferior."""
    request = Request.from_json(params)
    word = params.get("together")
    planner = partial(_together.plan, str(word)) if word else make_plan
    outcome = planner(request, channel.read_memory, channel.tell)
    frame = {} if outcome.frame is None else {"frame": asdict(outcome.frame)}
    if outcome.plan is None:
        return {"outcome": "unchanged", "notes": list(outcome.notes), "times": outcome.times, **frame}
    later = {}
    if request.symbols_later:
        will_be_finished(outcome.plan.files)
        later = {"symbols_later": True}
    sides = {"sides": sides_for(request, outcome.plan, channel.read_memory)} if params.get("sides") else {}
    return {
        "outcome": "planned",
        "plan": outcome.plan.to_json(),
        "is_first": outcome.is_first,
        **frame,
        **sides,
        **later,
        "offers": list(outcome.offers),
    }


def symbols(channel: Channel, params: Answer) -> Answer:
    """When the patch files of a plan have their debug information. Errors: why they have not."""
    require_finished(params["files"])
    return {}


def report(channel: Channel, params: Answer) -> Answer:
    """A page of HTML with what was done to the program, written to `file`."""
    write_whole(Path(params["file"]), page(Request.from_json(params), channel.read_memory))
    return {}


def save(channel: Channel, params: Answer) -> Answer:
    """What runs patched, as a patch file, written to `file`; what is in it."""
    return save_patched(Request.from_json(params), channel.read_memory, Path(params["file"]), channel.tell)


def doctor(channel: Channel, params: Answer) -> Answer:
    """What is known of the program, line by line."""
    return {"lines": examine(Request.from_json(params), channel.read_memory)}


def trust(channel: Channel, params: Answer) -> Answer:
    """The user agreed to run what this hash stands for."""
    agree(str(params.get("hash", "")), str(params.get("text", "")))
    return {}


VERBS: dict[str, Callable[[Channel, Answer], Answer]] = {
    "hello": hello,
    "plan": plan,
    "symbols": symbols,
    "doctor": doctor,
    "agree": trust,
    "report": report,
    "save": save,
    "follow": follow,
    "saves": saves,
}


def _bug(error: Exception) -> IpbpError:
    return IpbpError(
        "engine-bug",
        f"the engine failed with {type(error).__name__}: {error}",
        "This is a bug in ipbp; the process is untouched. Please report it with the engine's log.",
        "".join(traceback.format_exception(error)),
    )
