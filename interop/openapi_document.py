"""The OpenAPI document of a server of ours: which operation a request is of, and whether an answer is as it says."""

from __future__ import annotations

import re
from functools import cache
from typing import Any
from urllib.parse import unquote, urlsplit

from jsonschema import Draft202012Validator

from rest import Answer

PREFIX = "/api/v1"


class Document:
    """A document, and what it says of requests."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._schema = cache(self._validator)

    def operation(self, method: str, path: str) -> dict[str, Any] | None:
        """What is said of a request. A path that is named as it stands goes before one with parts in braces."""
        path = unquote(urlsplit(path).path).removeprefix(PREFIX) if "%2F" not in path else ""
        for template in sorted(self.document["paths"], key=lambda template: template.count("{")):
            if re.fullmatch(re.sub(r"\\{\w+\\}|\{\w+\}", "[^/]+", template), path):
                return self.document["paths"][template].get(method.lower())
        return None

    def response(self, operation: dict[str, Any], status: int) -> dict[str, Any]:
        found = operation["responses"].get(str(status))
        assert found is not None, f"status {status} is not documented for {operation['operationId']}"
        return self._resolved(found)

    def check(self, operation: dict[str, Any], answer: Answer) -> None:
        """The status is documented, and so are the kind of content and all that is in it."""
        contents = self.response(operation, answer.status).get("content")
        if contents is None:
            assert answer.raw == b"", answer
            return
        kind = answer.headers["content-type"].partition(";")[0]
        assert kind in contents, f"{kind} is not documented for {operation['operationId']}"
        schema = contents[kind]["schema"]
        if "$ref" in schema:
            error = next(self._schema(schema["$ref"]).iter_errors(answer.body), None)
            assert error is None, f"{operation['operationId']}: {error.json_path if error else ''}: {error}"[:3000]

    def _resolved(self, value: dict[str, Any]) -> dict[str, Any]:
        if "$ref" not in value:
            return value
        found: Any = self.document
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        return found

    def _validator(self, reference: str) -> Draft202012Validator:
        schema = {"$ref": reference, "components": self.document["components"]}
        return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
