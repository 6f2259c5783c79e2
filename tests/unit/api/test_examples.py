from pathlib import Path

import pytest
import yaml

from tests.unit.api import tables

EXAMPLES = Path(__file__).parents[3] / "examples"
DOCUMENTS = [
    pytest.param(document, id=f"{file.parent.name}/{file.name}-{document['kind']}")
    for file in sorted(EXAMPLES.glob("*/*.yaml"))
    for document in yaml.safe_load_all(file.read_text(encoding="utf-8"))
    if document["kind"] in tables.MODELS
]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_examples_are_valid(document):
    tables.MODELS[document["kind"]].model_validate(document)


def test_there_are_examples_of_every_kind():
    assert {parameter.values[0]["kind"] for parameter in DOCUMENTS} == set(tables.MODELS)
