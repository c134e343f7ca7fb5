"""The OpenAPI document and the page at ``/``: what is enforced, no more and no less.

BentoML cannot say "one or many" in its own document, so this one is written from the published models.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from bentos.classify.faults import MAX_DEPTH
from bentos.releases.release import FEATURE_NAMES
from bentos.schemas import Decision, transaction_model
from bentos.settings.load import Settings

Json = Any
REFERENCE = "#/components/schemas/{model}"
# Invented, near the average of every component: not a row of any data set.
EXAMPLE_COMPONENTS = (
    *(-1.2, 0.8, 0.6, 1.1, -0.4, 0.3, 0.2, 0.1, -0.6, 0.4, -0.9, 0.5, 0.2, -1.4),
    *(0.7, -0.3, 0.9, 0.1, -0.2, 0.05, -0.1, 0.3, 0.02, 0.4, -0.3, 0.1, 0.03, -0.02),
)
EXAMPLE_TRANSACTION: dict[str, Any] = {
    "transaction_id": "T-17",
    **dict(zip(FEATURE_NAMES, (3600.0, *EXAMPLE_COMPONENTS, 42.5), strict=True)),
}
EXPLAIN = {
    "name": "explain",
    "in": "query",
    "description": "Add reasons, the features that moved the score most: to all decisions, none, "
    "or reviews and declines only.",
    "schema": {"type": "string", "enum": ["true", "false", "alarms"], "default": "false"},
}
RETRY_AFTER = {
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}
}
OTHER_TRANSACTION = EXAMPLE_TRANSACTION | {
    "transaction_id": "T-18",
    "V4": 5.2,
    "V10": -7.1,
    "V14": -9.4,
    "Amount": 1.0,
}
EXAMPLE_DECISION: dict[str, Any] = {
    "transaction_id": "T-17",
    "decision": "review",
    "is_fraud": True,
    "fraud_probability": 0.0312,
    "risk_level": "MEDIUM",
    "raised_by": ["neural_net"],
    "scores": {"neural_net": 0.91, "xgboost": 0.08},
    "release": "12",
    "models": {"neural_net": "fraud_neural_net:12", "xgboost": "fraud_xgboost:12"},
}
# What `?explain=true` adds: the contributions of all 30 features and the base value sum to the log-odds.
EXAMPLE_REASONS: dict[str, Any] = {
    "reasons": [{"feature": "V14", "contribution": 3.21}, {"feature": "V4", "contribution": 1.08}],
    "reasons_for": {"score": "neural_net", "base_value": -2.4, "log_odds": 2.31},
}


class FaultDetail(BaseModel):
    """One thing wrong with a request, and where."""

    model_config = ConfigDict(title="FaultDetail")
    loc: list[int | str] = Field(description="Index in the list, if it was one; then the field.")
    type: str = Field(description="What kind of fault.")
    msg: str = Field(description="In words; never a value of the transaction.")


class Fault(BaseModel):
    """What every error answers."""

    error: str = Field(description="What is wrong, in a sentence.")
    detail: list[FaultDetail] = Field(
        description="Every bad item, the first 100; empty where none is to name."
    )


class Info(BaseModel):
    """What is served."""

    release: str = Field(description="The version under which everything here was promoted together.")
    models: dict[str, str] = Field(description="Tags in the BentoML model store.")
    registered_models: dict[str, dict[str, str]] = Field(description="Where they come from in the registry.")
    feature_names: list[str] = Field(description="The features, in the models' order.")
    thresholds: dict[str, float] = Field(description="A model is alarmed at a score of at least this.")
    calibration: dict[str, Any] = Field(description="How scores become fraud_probability.")
    training_run_id: str = Field(description="The MLflow run.")
    trained_at: str = Field(description="ISO 8601.")
    data: dict[str, Any] = Field(description="What it was trained on: name, fingerprint, rows, frauds.")
    metrics: dict[str, dict[str, Any]] = Field(description="On the test part, with intervals.")
    expected_loss: dict[str, float] | None = Field(
        description="From which fraud_probability x Amount on a transaction is reviewed (bound); null: never."
    )
    review_cost: float | None = Field(description="Cost of one review, account currency.")
    prevalence: float | None = Field(description="Share of frauds in the stream.")
    input_limits: dict[str, float] | None = Field(description="What training took as input.")
    reference: dict[str, Any] | None = Field(description="Distributions in training, to measure drift by.")


def document(settings: Settings) -> dict[str, Any]:
    """Return the OpenAPI 3.0 document of the service under `settings`."""
    transaction = transaction_model(settings.limits)
    paths: dict[str, Any] = {
        "/classify": {"post": _classify(settings)},
        "/info": {"get": _read("info", "What is served.", {"application/json": _schema("Info")}, "Serving")},
    }
    for path, summary in (
        ("/healthz", "Alive."),
        ("/livez", "Alive: otherwise restart it."),
        ("/readyz", "Ready: both runners answer."),
        ("/metrics", "Prometheus metrics."),
    ):
        content = {"text/plain": {"schema": {"type": "string"}}}
        paths[path] = {"get": _read(path[1:], summary, content, "Operations")}
    paths["/readyz"]["get"]["responses"]["503"] = {"description": "Not ready."}
    specification: dict[str, Any] = {
        "openapi": "3.0.3",
        "info": {
            "title": "Fraud detection",
            "version": "1",
            "description": "Scores card transactions with a neural network and gradient-boosted trees.",
        },
        "servers": [{"url": "."}],
        "tags": [{"name": "Serving"}, {"name": "Operations"}],
        "paths": paths,
        "components": {"schemas": component_schemas(transaction)},
    }
    if settings.security.api_keys or settings.security.api_keys_file:
        specification["components"]["securitySchemes"] = {
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            "bearer": {"type": "http", "scheme": "bearer"},
        }
        specification["security"] = [{"key": []}, {"bearer": []}]
    return specification


def component_schemas(transaction: type[BaseModel]) -> dict[str, Any]:
    """Return the schemas by name, in the dialect of OpenAPI 3.0."""
    models = [(transaction, "validation"), *((model, "serialization") for model in (Decision, Fault, Info))]
    _, definitions = models_json_schema(models, ref_template=REFERENCE)  # type: ignore[arg-type]
    schemas: dict[str, Any] = {name: _as_3_0(schema) for name, schema in definitions["$defs"].items()}
    schemas["Transaction"]["example"] = EXAMPLE_TRANSACTION
    return schemas


def one_or_many(name: str, at_most: int | None = None) -> dict[str, Any]:
    """Return the schema of one `name`, or a list of 1 to `at_most`."""
    reference = {"$ref": REFERENCE.format(model=name)}
    many: dict[str, Any] = {"type": "array", "items": reference, "minItems": 1}
    if at_most is not None:
        many["maxItems"] = at_most
    return {"oneOf": [reference, many]}


def _classify(settings: Settings) -> dict[str, Any]:
    body = {
        "schema": one_or_many("Transaction", settings.request.max_transactions),
        "examples": {
            "one": {"summary": "One transaction", "value": EXAMPLE_TRANSACTION},
            "many": {"summary": "A list", "value": [EXAMPLE_TRANSACTION, OTHER_TRANSACTION]},
        },
    }
    answer = {
        "schema": one_or_many("Decision", settings.request.max_transactions),
        "examples": _answer_examples(),
    }
    return {
        "operationId": "classify",
        "tags": ["Serving"],
        "summary": "Decide one transaction, or each of a list.",
        "description": "One object gets one decision; a list gets a list of the same length and order. "
        f"A transaction gives each key once and is nested at most {MAX_DEPTH} levels deep.",
        "parameters": [EXPLAIN],
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {
            "200": {
                "description": "The decision, or one for each transaction.",
                "content": {"application/json": answer},
            },
            "400": _fault(
                "Something in the request is against this document; nothing was decided.",
                {"loc": [1, "V14"], "type": "missing", "msg": "Field required"},
            ),
            "401": _fault("A key is needed."),
            "408": _fault("The body did not arrive in time."),
            "413": _fault("The body or the list is over its limit."),
            "415": _fault("The body is not application/json."),
            "503": {**_fault("Overloaded or not ready; try again."), "headers": RETRY_AFTER},
        },
    }


def _answer_examples() -> dict[str, Any]:
    other = EXAMPLE_DECISION | {"transaction_id": "T-18", "decision": "decline", "risk_level": "HIGH"}
    other |= {"raised_by": ["neural_net", "xgboost"], "fraud_probability": 0.94}
    other |= {"scores": {"neural_net": 0.99, "xgboost": 0.97}}
    return {
        "one": {"summary": "One decision", "value": EXAMPLE_DECISION},
        "many": {"summary": "A list, in the order of the transactions", "value": [EXAMPLE_DECISION, other]},
        "explained": {"summary": "With ?explain=true", "value": EXAMPLE_DECISION | EXAMPLE_REASONS},
    }


def _read(name: str, summary: str, content: dict[str, Any], tag: str) -> dict[str, Any]:
    return {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "responses": {"200": {"description": "OK.", "content": content}, "401": _fault("A key is needed.")},
    }


def _schema(name: str) -> dict[str, Any]:
    return {"schema": {"$ref": REFERENCE.format(model=name)}}


def _fault(description: str, *detail: dict[str, Any]) -> dict[str, Any]:
    example = {"error": description, "detail": list(detail)}
    return {
        "description": description,
        "content": {"application/json": _schema("Fault") | {"example": example}},
    }


def _as_3_0(schema: Json) -> Json:
    """Return `schema` as OpenAPI 3.0 has it: an optional field is absent, never null; others may be null."""
    if isinstance(schema, list):
        return [_as_3_0(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _as_3_0(value) for key, value in schema.items() if key != "default" or value is not None}
    choices = kept.get("anyOf", [])
    if {"type": "null"} in choices:
        others = [choice for choice in choices if choice != {"type": "null"}]
        if len(others) == 1:
            del kept["anyOf"]
            kept |= others[0]
            if "default" not in schema:  # always there
                kept["nullable"] = True
    return kept


PAGE = b"""<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="UTF-8">
    <title>Fraud detection</title>
    <link rel="stylesheet" href="./static_content/swagger-ui.css">
    <link rel="icon" type="image/png" href="./static_content/favicon-light-32x32.png" sizes="32x32">
  </head>
  <body>
    <div id="swagger-ui"></div>
    <script src="./static_content/swagger-ui-bundle.js"></script>
    <script>
      window.onload = () => {
        fetch("./docs.json").then((answer) => answer.json()).then((spec) => {
          // The document's "." is right behind any prefix; people read an address.
          spec.servers = [{url: new URL(".", window.location).href.replace(/[/]$/, "")}];
          window.ui = SwaggerUIBundle({
            spec: spec, dom_id: "#swagger-ui", deepLinking: true, tryItOutEnabled: true,
            presets: [SwaggerUIBundle.presets.apis],
          });
        });
      };
    </script>
  </body>
</html>
"""
"""BentoML's own page reports every visit to Google; a page that shows transactions must not."""
