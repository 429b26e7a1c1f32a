"""Reads as much of a Dockerfile as its test needs."""

import json
import re
from dataclasses import dataclass, field

BUILDING = {"FROM", "ARG", "ENV", "RUN", "COPY", "WORKDIR"}
RUNNING = {"USER", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD", "STOPSIGNAL", "LABEL"}
KNOWN = BUILDING | RUNNING


@dataclass
class Stage:
    """One FROM and what follows it, instruction by instruction."""

    name: str
    parent: str
    lines: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        """Return the arguments of every such instruction of this stage."""
        return [arguments for name, arguments in self.lines if name == instruction]


def parse(text: str) -> list[Stage]:
    """Return the stages in their order.

    Raises:
        ValueError: an instruction that this file has no use for, or one before the first FROM.
    """
    stages: list[Stage] = []
    for line in logical_lines(text):
        instruction, _, arguments = line.partition(" ")
        arguments = " ".join(arguments.split())
        if instruction not in KNOWN:
            raise ValueError(f"unknown instruction: {line}")
        if instruction == "FROM":
            stages.append(new_stage(arguments))
        elif not stages:
            raise ValueError(f"before the first FROM: {line}")
        else:
            stages[-1].lines.append((instruction, arguments))
    return stages


def logical_lines(text: str) -> list[str]:
    """Return the lines with continuations joined, without comments and empty ones."""
    kept = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return re.sub(r"\\\n", " ", "\n".join(kept)).splitlines()


def new_stage(arguments: str) -> Stage:
    match = re.fullmatch(r"(\S+) AS (\S+)", arguments)
    if match is None:
        raise ValueError(f"FROM without a name for the stage: {arguments}")
    return Stage(name=match[2], parent=match[1])


def sources(copy: str) -> list[str]:
    """Return what a COPY takes out of the build context; nothing if it copies from a stage."""
    words = copy.split()
    if any(word.startswith("--from=") for word in words):
        return []
    return [word for word in words if not word.startswith("--")][:-1]


def command(arguments: str) -> list[str]:
    """Return the words of an instruction in exec form.

    Raises:
        ValueError: it is in shell form, where signals do not reach the program.
    """
    words = json.loads(arguments)
    if not isinstance(words, list):
        raise ValueError(f"not in exec form: {arguments}")
    return [str(word) for word in words]
