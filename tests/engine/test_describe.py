from __future__ import annotations

import json

import jsonschema
import pytest

from napari_semiseg.engine.describe import REQUESTS, describe, describe_methods
from napari_semiseg.engine.serve import VERBS
from napari_semiseg.events import MAX_EVENT, Described, decode_event, encode
from napari_semiseg.methods._base import NO_NETWORK
from napari_semiseg.methods._registry import METHODS
from napari_semiseg.nn._registry import NETWORKS


@pytest.fixture(scope="module")
def description():
    return describe()


def test_it_travels_as_one_event_and_comes_back_the_same(description):
    line = encode(Described(description))

    assert len(line) < MAX_EVENT / 2
    back, _ = decode_event(line)
    assert back.description == description


def test_methods_and_networks_come_in_the_order_of_their_registries(description):
    assert [method["name"] for method in description["methods"]] == list(METHODS)
    assert [network["name"] for network in description["networks"]] == list(NETWORKS)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_says_what_it_is_and_needs(method):
    [described] = [entry for entry in describe_methods() if entry["name"] == method]

    assert described["title"]
    assert described["summary"].endswith(".")
    assert described["references"] or method == "supervised", "labels alone come from no paper"
    assert described["labels"] in ("needed", "used", "unused")
    assert described["network"] is None or described["network"] in {*NETWORKS, NO_NETWORK}


def test_every_option_has_a_default_within_its_own_bounds_and_a_help(description):
    for method in description["methods"]:
        schema = method["options"]
        jsonschema.Draft202012Validator.check_schema(schema)
        defaults = {name: field["default"] for name, field in schema.get("properties", {}).items()}
        jsonschema.validate(defaults, schema)
        for name, field in schema.get("properties", {}).items():
            assert field.get("description"), f"{method['name']}.{name} has no help"


def test_every_verb_declares_its_options(description):
    assert set(REQUESTS) == set(VERBS) == set(description["requests"])
    for schema in description["requests"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
        assert schema["additionalProperties"] is False


def test_presets_and_devices_are_named(description):
    assert [preset["name"] for preset in description["presets"]] == ["quick", "standard", "best", "paper"]
    assert description["devices"][-1]["name"] == "cpu"
    assert description["devices"][-1]["ok"]
    json.dumps(description, allow_nan=False)
