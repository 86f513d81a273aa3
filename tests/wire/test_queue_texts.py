"""A list of names is read to its end, and a wrong quote in it is placed."""

from __future__ import annotations

import pytest

from nats_executor.errors import ConfigError
from nats_executor.wire.queue_names import in_pairs, in_text


@pytest.mark.parametrize(("text", "place"), [('"a', 1), ('a,"b', 3), ('a,b,"', 5)])
def test_the_place_of_a_wrong_quote_is_counted_from_one(text: str, place: int) -> None:
    with pytest.raises(ConfigError, match=f"from character {place} on"):
        in_text(text)


@pytest.mark.parametrize(
    ("text", "names"), [("", []), ("a", ["a"]), ("ab", ["ab"]), (",", []), ('"a"', ["a"])]
)
def test_a_list_is_read_from_its_first_character_on(text: str, names: list[str]) -> None:
    assert in_text(text) == names


def test_a_pair_has_one_name() -> None:
    assert in_pairs('a=1,"b,c"=2') == [("a", "1"), ("b,c", "2")]
    with pytest.raises(ValueError, match="="):
        in_pairs("=1")
