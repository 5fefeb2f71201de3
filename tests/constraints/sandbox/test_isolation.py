"""Continuous integration has walls for the sandbox: without any, its tests would only skip."""

import os
import sys

import pytest

from tiltune.constraints.sandbox import available


@pytest.mark.skipif(not os.environ.get("CI"), reason="only continuous integration insists on it")
@pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")
def test_at_least_one_wall_can_be_raised() -> None:
    faults = {wall: available.fault(wall) for wall in ("namespaces", "landlock")}
    assert "" in faults.values(), faults
