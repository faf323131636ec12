"""See the package's docstring."""

from typing import Any


class ExpectationSuite:
    """Holds what it is given and gives it back."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields
        self.expectations: list[Any] = []

    def to_json_dict(self) -> dict[str, Any]:
        return self.fields
