"""Runs the commands for dead letters. Each returns normally for exit code 0."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from airflow.utils.platform import getuser

from nats_executor.cli.arguments import (
    ask,
    command,
    quiet,
    require_yes,
    settings_for,
    show,
    show_details,
)
from nats_executor.errors import ConfigError
from nats_executor.fleet.letters import Wanted, details_row, letter_row
from nats_executor.operations.letters import MOST_LETTERS, find_letters, letters_at, remove_letters

if TYPE_CHECKING:
    from argparse import Namespace

    from nats_executor.fleet.letters import Letter
    from nats_executor.operations.letters import FoundLetters
    from nats_executor.settings import Settings

__all__ = ["dead_letters_list", "dead_letters_purge", "dead_letters_retry", "dead_letters_show"]

# Rows of a list, if no --limit is given.
LISTED_LETTERS = 100


@command
@quiet
def dead_letters_list(args: Namespace) -> None:
    """Print one row for each dead letter, the newest first."""
    found = wanted_letters(settings_for(args), args, LISTED_LETTERS)
    show([letter_row(letter, found.now) for letter in found.letters], args.output)


@command
@quiet
def dead_letters_show(args: Namespace) -> None:
    """Print all that is known of one dead letter, but not its body."""
    settings = settings_for(args)
    found = ask(settings, lambda broker: letters_at(broker, settings.names, [args.sequence]))
    show_details(details_row(found.letters[0], found.now), args.output)


@command
@quiet
def dead_letters_purge(args: Namespace) -> None:
    """Remove dead letters once a person has said yes."""
    settings = settings_for(args)
    found = wanted_letters(settings, args, MOST_LETTERS)
    rows = [letter_row(letter, found.now) for letter in found.letters]
    if args.dry_run:
        show(rows, args.output)
        return
    if found.letters:
        sys.stderr.write(
            f"{letters_in_words(found.letters)} to go: their tasks are not run again\n"
        )
        require_yes(args, "Remove them?", "nothing was removed")
    removed = ask(settings, lambda broker: remove_letters(broker, settings.names, found.letters))
    show([{"removed_letters": removed}], args.output)


@command
@quiet
def dead_letters_retry(args: Namespace) -> None:
    """Have Airflow run tasks of dead letters again; exit 1 if it does not want all of them."""
    from nats_executor.operations.clearing import clear_again, outcome_row

    settings = settings_for(args)
    letters, by = wanted_letters(settings, args, MOST_LETTERS).letters, getuser()
    outcomes = clear_again(letters, by=by, is_trial=True)
    if args.dry_run:
        show([outcome_row(outcome, is_trial=True) for outcome in outcomes], args.output)
        return
    possible = [outcome.letter for outcome in outcomes if not outcome.refusal]
    if possible:
        sys.stderr.write(f"{len(possible)} of {letters_in_words(letters)} can be retried\n")
        require_yes(args, "Retry them?", "nothing was retried")
        outcomes = clear_again(letters, by=by, is_trial=False)
    done = [outcome.letter for outcome in outcomes if not outcome.refusal]
    ask(settings, lambda broker: remove_letters(broker, settings.names, done))
    show([outcome_row(outcome) for outcome in outcomes], args.output)
    if len(done) < len(letters):
        raise SystemExit(1)


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
