import os
import signal

import pytest

from training.termination import install_stop_handlers, stop_deferred


@pytest.fixture(autouse=True)
def _handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    install_stop_handlers()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_stop_takes_effect_at_once_outside_and_at_the_end_inside(number, error):
    with pytest.raises(error):
        os.kill(os.getpid(), number)
    done = []
    with pytest.raises(error), stop_deferred():
        with stop_deferred():
            os.kill(os.getpid(), number)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]
    with stop_deferred():
        done.append("nothing is pending any more")


def test_exit_code_is_that_of_the_signal():
    with pytest.raises(SystemExit) as error:
        os.kill(os.getpid(), signal.SIGTERM)
    assert error.value.code == 143


def test_second_stop_does_not_wait():
    done = []
    with pytest.raises(SystemExit), stop_deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("waits")
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("unreached")
    assert done == ["waits"]


def test_error_of_the_block_does_not_swallow_the_stop():
    with pytest.raises(SystemExit), stop_deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError
