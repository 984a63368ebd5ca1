"""Where things are kept, for the service, for root standing in for it, and for a user."""

from pathlib import Path

import pytest

from daemon import places
from daemon.places import find_places


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A machine with the service installed, in a folder."""
    for name, path in (("CONFIG", "etc/config.toml"), ("STATE", "var/lib"), ("CACHE", "var/cache")):
        monkeypatch.setattr(places, f"SYSTEM_{name}", tmp_path / path)
    for folder in ("etc", "var/lib", "var/cache", "home"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/config.toml").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


def where(environ):
    found = find_places(environ)
    return found.config, found.state, found.cache, found.voices


def test_the_service_keeps_what_systemd_made_for_it(system):
    """The first of each list of folders."""
    environ = {"STATE_DIRECTORY": f"{system}/var/lib:/other", "CACHE_DIRECTORY": f"{system}/var/cache:/other"}
    lib = system / "var/lib"
    assert where(environ) == (system / "etc/config.toml", lib, system / "var/cache", (lib / "voices",))


def test_root_stands_in_for_the_service(system):
    """With the service's configuration and the right to write, what is kept is the service's."""
    lib = system / "var/lib"
    assert where({}) == (system / "etc/config.toml", lib, system / "var/cache", (lib / "voices",))


def test_a_user_keeps_things_at_home(system, monkeypatch):
    """Who may not write the service's folders, has a configuration, or says where: voices of both are read."""
    home, lib = system / "home", system / "var/lib"
    user = (home / ".local/state/crier", home / ".cache/crier", (home / ".local/state/crier/voices", lib / "voices"))
    with monkeypatch.context() as patched:
        patched.setattr("os.access", lambda path, _mode: Path(path).is_relative_to(home))
        assert where({})[1:] == user
    named = {"XDG_STATE_HOME": f"{home}/s", "XDG_CACHE_HOME": f"{home}/c"}
    assert where(named)[1:] == (home / "s/crier", home / "c/crier", (home / "s/crier/voices", lib / "voices"))
    (home / ".config/crier").mkdir(parents=True)
    (home / ".config/crier/config.toml").touch()
    assert where({}) == (home / ".config/crier/config.toml", *user)


def test_without_the_service_nothing_is_the_services(system):
    """Its folder is read for voices all the same: it may come."""
    (system / "etc/config.toml").unlink()
    config, state, cache, voices = where({})
    assert (config, state, cache) == (None, system / "home/.local/state/crier", system / "home/.cache/crier")
    assert voices == (state / "voices", system / "var/lib/voices")
