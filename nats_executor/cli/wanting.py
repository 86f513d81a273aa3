"""Finds the dead letters that a command line names."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from nats_executor.cli.arguments import ask
from nats_executor.cli.letters import MOST_LETTERS, find_letters, letters_at
from nats_executor.errors import ConfigError
from nats_executor.fleet.letters import Wanted

if TYPE_CHECKING:
    from argparse import Namespace

    from nats_executor.cli.letters import FoundLetters
    from nats_executor.fleet.letters import Letter
    from nats_executor.settings import Settings

__all__ = ["letters_in_words", "wanted_letters"]


def wanted_letters(settings: Settings, args: Namespace, limit: int) -> FoundLetters:
    """Return the letters that the arguments name; says on stderr if there are more."""
    wanted = Wanted(args.queue, args.dag, args.older_than)
    limit = min(args.limit or limit, MOST_LETTERS)
    if sequences := getattr(args, "sequences", ()):
        if wanted != Wanted() or args.limit:
            raise ConfigError("name letters by their sequences or by options, not by both")
        return ask(settings, lambda broker: letters_at(broker, settings.names, sequences))
    found = ask(settings, lambda broker: find_letters(broker, settings.names, wanted, limit))
    if not found.is_whole:
        sys.stderr.write(f"these are the newest {limit}; there are more (--limit, or repeat)\n")
    return found


def letters_in_words(letters: list[Letter]) -> str:
    return f"{len(letters)} dead letter{'' if len(letters) == 1 else 's'}"
