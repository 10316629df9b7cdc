"""What is shared is equal to what was given, and kept once."""

from coordinator.sharing import KEPT_MAX, shared_map, shared_text


def made(name: str, number: int) -> dict[tuple[str, int], int]:
    return {(f"{name}.do", number): number, (f"{name}.done", number): 0}


def test_equal_mappings_are_one_and_in_the_same_order() -> None:
    one, other = made("pay", 1), made("pay", 1)
    assert shared_map(one) is shared_map(other)
    assert list(shared_map(one).items()) == list(one.items())
    turned = dict(reversed(one.items()))
    assert list(shared_map(turned)) == list(turned)


def test_what_is_shared_does_not_change_with_what_was_given() -> None:
    one = made("pay", 1)
    shared = shared_map(one)
    one.clear()
    assert shared == made("pay", 1)


def test_equal_texts_are_one() -> None:
    words = ["payments", "is", "down"]
    one, other = " ".join(words), " ".join(words)
    assert one is not other
    assert shared_text(one) is shared_text(other)
    assert shared_text(one) == one


def test_what_is_rarely_seen_is_not_kept_for_ever() -> None:
    first = shared_map(made("pay", 0))
    names = [f"number {number}" for number in (0, *range(KEPT_MAX + 1))]
    text = shared_text(names[0])
    for number in range(1, KEPT_MAX + 1):
        assert shared_map(made("pay", number)) == made("pay", number)
    assert shared_map(made("pay", 0)) is not first
    for name in names[2:]:
        assert shared_text(name) == name
    assert shared_text(names[1]) is not text
