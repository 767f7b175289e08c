"""Memory that is read in the same places each time is asked for at once, and never remembered."""

from __future__ import annotations

from collections.abc import Sequence

from ipbp.formats.foreseen import Foreseen


class _Memory:
    """Bytes by address; `asked`: what was asked for together."""

    def __init__(self, **words: bytes) -> None:
        self.words = {int(name[1:]): content for name, content in words.items()}
        self.asked: list[list[tuple[int, int]]] = []

    def __call__(self, ranges: Sequence[tuple[int, int]]) -> list[bytes | None]:
        self.asked.append(list(ranges))
        return [content[:size] if (content := self.words.get(at)) else None for at, size in ranges]


def followed(key: object, memory: _Memory, *places: int) -> list[bytes | None]:
    """What is read one after the other."""
    reader = Foreseen(key, memory)
    found = [reader([(place, 1)])[0] for place in places]
    reader.done()
    return found


def test_the_second_time_one_question_is_enough_and_its_answer_is_of_now() -> None:
    memory = _Memory(a1=b"x", a2=b"y", a3=b"z")
    assert followed("second", memory, 1, 2, 3) == [b"x", b"y", b"z"]
    assert len(memory.asked) == 3
    memory.words[2] = b"w"
    memory.asked.clear()
    assert followed("second", memory, 1, 2, 3) == [b"x", b"w", b"z"]
    assert memory.asked == [[(1, 1), (2, 1), (3, 1)]]


def test_other_places_are_asked_for_and_are_the_ones_of_the_next_time() -> None:
    memory = _Memory(a1=b"x", a2=b"y", a4=b"v")
    followed("other", memory, 1, 2)
    memory.asked.clear()
    assert followed("other", memory, 1, 4) == [b"x", b"v"]
    assert memory.asked == [[(1, 1), (2, 1)], [(4, 1)]]
    memory.asked.clear()
    assert followed("other", memory, 1, 4) == [b"x", b"v"]
    assert memory.asked == [[(1, 1), (4, 1)]]


def test_what_could_not_be_read_is_tried_again_when_it_is_asked_for() -> None:
    memory = _Memory(a1=b"x", a2=b"y")
    followed("again", memory, 1, 2)
    del memory.words[2]
    reader = Foreseen("again", memory)
    assert reader([(1, 1)]) == [b"x"]
    assert reader([(2, 1)]) == [None]
    memory.words[2] = b"y"
    assert reader([(2, 1), (1, 1)]) == [b"y", b"x"]


def test_processes_do_not_share_places() -> None:
    memory = _Memory(a1=b"x", a2=b"y")
    followed("one", memory, 1, 2)
    memory.asked.clear()
    followed("two", memory, 1)
    assert memory.asked == [[(1, 1)]]
