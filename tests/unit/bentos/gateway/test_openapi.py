"""The published document says what is enforced, no more and no less."""

import json
from typing import Any

import jsonschema_rs
import pytest

from bentos.classify.decoding import Decoder
from bentos.gateway.openapi import EXAMPLE_TRANSACTION, PAGE, document
from bentos.releases.release import FEATURE_NAMES, LATER_FIELDS
from bentos.schemas import feature_range
from bentos.settings.load import Settings
from tests.serving_fixtures import FEATURES, encoded

SETTINGS = Settings(limits={"amount_max": 5000.0}, request={"max_transactions": 7})
DOCUMENT = document(SETTINGS)


def resolved(node: Any) -> Any:
    """Return `node` with its references followed."""
    if isinstance(node, list):
        return [resolved(part) for part in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return resolved(DOCUMENT["components"]["schemas"][node["$ref"].rpartition("/")[2]])
    return {key: resolved(value) for key, value in node.items()}


BODY = DOCUMENT["paths"]["/classify"]["post"]["requestBody"]["content"]["application/json"]
VALIDATOR = jsonschema_rs.Draft4Validator(resolved(BODY["schema"]))


def test_features_stand_in_the_models_order() -> None:
    assert FEATURE_NAMES == FEATURES
    properties = DOCUMENT["components"]["schemas"]["Transaction"]["properties"]
    assert tuple(properties) == (*FEATURES, "transaction_id")
    assert DOCUMENT["components"]["schemas"]["Transaction"]["required"] == list(FEATURES)


@pytest.mark.parametrize("name", FEATURES)
def test_limits_are_stated(name: str) -> None:
    field = DOCUMENT["components"]["schemas"]["Transaction"]["properties"][name]
    smallest, largest = feature_range(name, SETTINGS.limits)
    assert (field["type"], field["minimum"], field["maximum"]) == ("number", smallest, largest)
    assert field["description"]


def test_the_list_cap_is_stated() -> None:
    many = BODY["schema"]["oneOf"][1]
    assert (many["minItems"], many["maxItems"]) == (1, 7)


@pytest.mark.parametrize("example", ["one", "many"])
def test_the_examples_are_valid_by_schema_and_decoder(example: str) -> None:
    value = BODY["examples"][example]["value"]
    assert VALIDATOR.is_valid(value)
    Decoder(SETTINGS.limits, 7).decode(encoded(value))


@pytest.mark.parametrize("example", ["one", "many", "explained"])
def test_the_answers_shown_are_answers(example: str) -> None:
    """For one, for a list, and with reasons: each is what the service could answer."""
    shown = DOCUMENT["paths"]["/classify"]["post"]["responses"]["200"]["content"]["application/json"]
    value = shown["examples"][example]["value"]
    assert jsonschema_rs.Draft4Validator(resolved(shown["schema"])).is_valid(value)
    assert ("reasons" in value) == (example == "explained")


def test_errors_are_shown_as_they_are_and_not_as_the_word_string() -> None:
    answers = DOCUMENT["paths"]["/classify"]["post"]["responses"]
    for status in set(answers) - {"200"}:
        shown = answers[status]["content"]["application/json"]
        assert jsonschema_rs.Draft4Validator(resolved(shown["schema"])).is_valid(shown["example"])
        assert "string" not in json.dumps(shown["example"])
    assert answers["400"]["content"]["application/json"]["example"]["detail"]


def test_the_page_names_the_address_that_it_came_from() -> None:
    """A drop-down of servers that shows "." tells nobody where a request goes."""
    assert b"spec.servers = [{url: new URL(" in PAGE


def test_an_identity_is_never_null() -> None:
    assert not VALIDATOR.is_valid({**EXAMPLE_TRANSACTION, "transaction_id": None})


def test_what_an_older_release_does_not_know_may_be_null_and_what_is_left_out_may_not() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert {name for name, field in schemas["Info"]["properties"].items() if field.get("nullable")} == set(
        LATER_FIELDS
    )
    assert set(schemas["Info"]["required"]) == set(schemas["Info"]["properties"])
    assert '"nullable"' not in json.dumps([schemas["Decision"], schemas["Transaction"]])


def test_every_error_has_the_same_shape() -> None:
    answers = DOCUMENT["paths"]["/classify"]["post"]["responses"]
    assert set(answers) == {"200", "400", "401", "408", "413", "415", "503"}
    for status in set(answers) - {"200"}:
        reference = answers[status]["content"]["application/json"]["schema"]
        assert reference == {"$ref": "#/components/schemas/Fault"}
    assert "Retry-After" in answers["503"]["headers"]


def test_keys_are_documented_where_they_are_asked() -> None:
    assert "security" not in DOCUMENT
    closed = document(Settings(security={"api_keys": ["key"]}))
    assert closed["security"] == [{"key": []}, {"bearer": []}]
    assert "key" not in json.dumps(closed["components"]["schemas"])


def test_the_document_is_openapi_3_0() -> None:
    """No null type, no numeric exclusive limits: what 3.0 cannot say is not said."""
    text = json.dumps(DOCUMENT)
    assert '"null"' not in text and "exclusiveM" not in text and "prefixItems" not in text
