"""A stand-in for the package great_expectations, just wide enough for Feast to import.

Feast 0.67 imports an old great_expectations whenever it reads or writes a validation reference, and the
versions that it accepts cannot be installed beside the numpy that it also wants. These tests never
validate data; they only store validation references and read them back, in Feast's own server too.
"""

from typing import Any


def validate(*_args: Any, **_kwargs: Any) -> None:
    raise NotImplementedError("this is a stand-in: it validates nothing")
