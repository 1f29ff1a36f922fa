"""Every input that the fuzz targets keep: those that failed once, and those that are near to it."""

import importlib

import campaign
import pytest
import trials

KEPT = [(name, path) for name in campaign.names() for path in trials.kept(name) if name != "live"]


@pytest.mark.parametrize(("name", "path"), KEPT, ids=[f"{name}-{path.stem}" for name, path in KEPT])
def test_a_kept_input(name, path):
    """It ends as is documented."""
    found = trials.attempt(campaign.target_of(name), path.read_bytes())

    assert not isinstance(found, trials.Failure), str(found)


@pytest.mark.slow
def test_a_live_server(request):
    """Kept rounds and some drawn ones against a real server, which does not grow and starts again."""
    target = campaign.target_of("live")
    rounds = [path.read_bytes() for path in trials.kept("live")]
    rounds += [target.input(2, n) for n in range(20)]
    for data in rounds:
        found = trials.attempt(target, data)
        assert not isinstance(found, trials.Failure), str(found)

    assert "" == target.finish()


def test_every_target_keeps_some():
    """An empty corpus would pass unnoticed; names are hashes, so that none is edited by hand.

    A number of a trial means little once the target has changed: such targets may keep none.
    """
    for name in campaign.names():
        paths = trials.kept(name)
        is_of_bytes = hasattr(importlib.import_module(name), "TARGET")
        assert paths or not is_of_bytes, f"fuzz/corpus/{name} is empty"
        assert [path.name for path in paths] == sorted(
            trials.file_name(path.read_bytes()) for path in paths
        )
