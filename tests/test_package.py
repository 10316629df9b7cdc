"""What ``import coordinator`` and ``import cmdstream`` give, and do not load."""

import subprocess
import sys

import coordinator


def test_every_public_name_can_be_had() -> None:
    for name in coordinator.__all__:
        assert getattr(coordinator, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    assert not hasattr(coordinator, "Cordinator")


def test_importing_the_package_loads_nothing_else_of_it() -> None:
    loaded = "[name for name in sys.modules if 'coordinator.' in name]"
    code = f"import sys, coordinator; print({loaded})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_using_it_loads_no_heavy_extra() -> None:
    heavy = {"aiohttp", "grpc", "rich", "typer", "pydantic"}
    code = f"import sys, coordinator.app; print({heavy!r} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_cmdstream_is_used_without_coordinator_and_without_extras() -> None:
    """Also its command line; of the codecs, only Protobuf's brings something along."""
    code = (
        "import sys, cmdstream, cmdstream.command_line, cmdstream.codecs.opaque\n"
        "foreign = {'coordinator', 'google', 'aiohttp', 'typer', 'rich', 'pydantic'}\n"
        "print({name.partition('.')[0] for name in sys.modules} & foreign)\n"
        "import cmdstream.codecs.protobuf\n"
        "print('coordinator' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["set()", "False"]
