"""The store gives back exactly what was put, or says that it cannot."""

from __future__ import annotations

import hashlib
import os
import stat
import threading

import pytest
from build_tree import set_age

from ipbp.build.places import cache_folder
from ipbp.build.store import Store, user_store
from ipbp.errors import IpbpError


def test_object_comes_back_by_its_content(tmp_path):
    store = Store(tmp_path)
    (tmp_path / "x").write_bytes(b"object")

    digest = store.put(tmp_path / "x")

    assert digest == hashlib.sha256(b"object").hexdigest() == store.put(b"object")
    assert store.get(digest).read_bytes() == b"object"
    assert stat.S_IMODE(store.get(digest).stat().st_mode) == 0o600
    assert len(list(tmp_path.glob("??/*"))) == 1


def test_damaged_object_is_not_given_out_and_can_be_put_again(tmp_path):
    store = Store(tmp_path)
    digest = store.put(b"object")
    store.get(digest).write_bytes(b"damage")

    with pytest.raises(IpbpError) as error:
        store.get(digest)

    assert error.value.code == "store-object-missing"
    assert store.get(store.put(b"object")).read_bytes() == b"object"


def test_digest_cannot_lead_out_of_the_store(tmp_path):
    with pytest.raises(ValueError, match="not a sha256"):
        Store(tmp_path).get("../" * 21 + "a")


def test_pruning_takes_the_oldest_and_keeps_what_runs(tmp_path):
    store = Store(tmp_path)
    digests = [store.put(bytes([n]) * 100) for n in range(4)]
    for age, digest in enumerate(reversed(digests)):
        set_age(store.get(digest), 10 + age)

    removed = store.prune({digests[0]}, max_bytes=200, max_age_seconds=3600)

    assert removed == [digests[1], digests[2]]
    assert [store.has(d) for d in digests] == [True, False, False, True]
    assert store.prune(set(), max_bytes=10**9, max_age_seconds=5) == [digests[0], digests[3]]


def test_use_makes_an_object_young(tmp_path):
    store = Store(tmp_path)
    digest = store.put(b"object")
    set_age(store.get(digest), 1000)

    store.put(b"object")

    assert store.prune(set(), max_bytes=10**9, max_age_seconds=100) == []


def test_threads_may_put_the_same_object_at_once(tmp_path):
    store = Store(tmp_path)
    threads = [threading.Thread(target=store.put, args=(b"same" * 10000,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [p.name for p in tmp_path.iterdir()] == [hashlib.sha256(b"same" * 10000).hexdigest()[:2]]


def test_folders_are_the_users_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))

    assert user_store().root == tmp_path / "c/ipbp/objects"
    assert stat.S_IMODE(os.stat(tmp_path / "c/ipbp/objects").st_mode) == 0o700


def test_relative_cache_home_is_ignored(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert cache_folder("x") == tmp_path / ".cache/ipbp/x"
