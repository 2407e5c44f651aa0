from __future__ import annotations

import pytest

from flows.result_files import ResultFileError, read_results
from flows.settings import Compared

KIND = Compared("findings.json", "Findings", keys=("id",), word="verdict", number="effect", rows="findings")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"findings\.json is not JSON"),
        ('{"others": []}', r"findings\.json: findings is no list of rows"),
        ('{"findings": ["a"]}', r"findings\.json: findings is no list of rows"),
        ("[]", r"findings\.json: findings is no list of rows"),
    ],
)
def test_a_result_file_of_another_form_is_named(text: str, message: str) -> None:
    with pytest.raises(ResultFileError, match=message):
        read_results("findings.json", text, KIND)


def test_a_number_that_is_none_does_not_differ_from_itself() -> None:
    text = '{"findings": [{"id": "a", "verdict": "unknown", "effect": NaN}]}'
    assert read_results("findings.json", text, KIND) == read_results("findings.json", text, KIND)
