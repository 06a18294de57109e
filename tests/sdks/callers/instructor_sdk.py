"""instructor: ``instructor.from_openai(unbroken.wrap(client))``."""

from __future__ import annotations

import instructor
from pydantic import BaseModel

from sdks.callers import MESSAGES, MODEL, Face
from sdks.callers.openai_sdk import client
from unbroken import Policy

TEXT = '{"name": "Ada Lovelace", "age": 36}'


class Person(BaseModel):
    name: str
    age: int


def said(person: Person | None) -> str:
    """The person as the server told it; nothing where there is no person."""
    if person is None or person.name is None:
        return ""
    return TEXT if (person.name, person.age) == ("Ada Lovelace", 36) else repr(person)


def partial(origin: str, policy: Policy | None) -> str:
    asking = instructor.from_openai(client(origin, policy), mode=instructor.Mode.JSON)
    person = None
    for person in asking.create_partial(response_model=Person, model=MODEL, messages=MESSAGES, max_retries=0):  # noqa: B007
        pass
    return said(person)


def whole(origin: str, policy: Policy | None) -> str:
    asking = instructor.from_openai(client(origin, policy), mode=instructor.Mode.JSON)
    return said(asking.create(response_model=Person, model=MODEL, messages=MESSAGES, max_retries=0))


ERRORS = ("instructor", "openai", "pydantic_core")
FACES = (
    Face("instructor create_partial", "chat", partial, text=TEXT, errors=ERRORS),
    Face("instructor create, not streamed", "chat", whole, streams=False, text=TEXT, errors=ERRORS),
)
