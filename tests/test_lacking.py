import pytest
from tests.lacking import lack


def test_what_a_machine_lacks_skips_a_test_and_in_ci_it_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs a spoon"):
        lack("needs a spoon")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="needs a spoon"):
        lack("needs a spoon")
