"""The three families of error.

```
Exception
├── TuspError                 one line for a person, never a traceback
│   ├── UserError             the request or the input is wrong: exit status 2
│   │   ├── DataError         a file or recording cannot be used (names it and the reason)
│   │   └── StoreError        the store is missing, older or newer than this program, or locked
│   └── CellError             one cell failed: recorded with its reason, the others go on
└── anything else             a defect of tusp: traceback
```
"""

from __future__ import annotations

from typing import Final

LONGEST_MESSAGE: Final = 1200


def one_line(text: str) -> str:
    """Text from anywhere as one printable line of bounded length: a broken file may hold anything."""
    line = "".join(character if character.isprintable() else "?" for character in text)
    if len(line) > LONGEST_MESSAGE:
        line = f"{line[: LONGEST_MESSAGE - 210]} ... {line[-200:]}"
    return line


class TuspError(Exception):
    """Base of every error whose message is meant for a person: always one line."""

    def __init__(self, *message: object) -> None:
        super().__init__(*(one_line(part) if isinstance(part, str) else part for part in message))


class UserError(TuspError):
    """The request is wrong. The message says what is wrong, where, and what would be right."""


class DataError(UserError):
    """A file or a recording cannot be used."""


class StoreError(UserError):
    """The SQL store cannot be used as it is."""


class CellError(TuspError):
    """One cell failed for a reason that is recorded with it."""
