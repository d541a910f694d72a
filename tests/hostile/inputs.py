"""What a hostile input is: how its folder is made, which commands meet it, and what is right."""

from dataclasses import dataclass, field
from typing import Callable


@dataclass
class Input:
    """One hostile input."""

    kind: str
    name: str
    # Makes it, in an empty folder.
    make: Callable
    # Run one after the other until one refuses; `photonc` goes before each.
    commands: list
    # What a refusal must name, one of them.
    names: tuple = ()
    # Why it may be accepted. Without a reason, letting it in is a fault.
    accept: str = ""
    # Whether what is accepted must print what the sound input prints.
    same: bool = False
    # Whether tokens are printed as text: they may be any bytes.
    prints_text: bool = False
    stdin: bytes | None = None
    # Other files that count as size of the input.
    extra_bytes: int = field(default=0)
    # Meets the job's server instead, and says how it ended (`served.End`); then there is nothing to make or to command.
    run: Callable | None = None
