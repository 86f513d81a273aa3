"""Runs the command that explains what one task waits for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nats_executor.cli.arguments import ask_again, command, quiet, say, settings_for, show_details
from nats_executor.operations.facts import facts_row

if TYPE_CHECKING:
    from argparse import Namespace

    from nats_executor.broker.port import Broker
    from nats_executor.operations.situations import Explanation

__all__ = ["why"]


@command
@quiet
def why(args: Namespace) -> None:
    """Print what a task waits for; exit 1 if a person has to act."""
    from nats_executor.operations.instances import WhichTask
    from nats_executor.operations.situations import explain

    settings = settings_for(args)
    wanted = WhichTask(args.dag, args.run, args.task, args.map_index, args.team_name)
    last: list[Explanation] = []

    async def look(broker: Broker) -> Explanation:
        return await explain(broker, settings, wanted)

    def shown(explanation: Explanation) -> None:
        last[:] = [explanation]
        tell(explanation, args.output)

    ask_again(settings, look, shown, args.watch)
    if last[-1].reason.cause.needs_person:
        raise SystemExit(1)


def tell(explanation: Explanation, output: str) -> None:
    """Print a sentence, what to do, and the facts; as one object for scripts."""
    reason, facts = explanation.reason, facts_row(explanation.situation)
    said = {"cause": str(reason.cause), "reason": reason.sentence, "remedy": reason.remedy or None}
    if output in {"json", "yaml"}:
        show_details(said | facts, output)
        return
    say(reason.sentence)
    if reason.remedy:
        say(f"next: {reason.remedy}")
    print()
    show_details({"cause": said["cause"]} | facts, output)
