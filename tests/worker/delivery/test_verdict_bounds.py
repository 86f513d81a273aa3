"""The number of renewals of a token and the wait of what goes back: both sides of each bound."""

from __future__ import annotations

import pytest

from nats_executor.wire.messages import State
from nats_worker.delivery.verdict import Back, Expired, Final, exit_text, judge
from nats_worker.processes.exit_report import Ending, ExitReport


@pytest.mark.parametrize(
    ("is_token_fresh", "generation", "is_renewed"),
    [
        # By this machine's clock it is fresh: then three renewals show that the clocks disagree.
        (True, 0, True),
        (True, 2, True),
        (True, 3, False),
        (True, 4, False),
        # It died while it waited: 50 renewals, which is two days of the longest queue.
        (False, 3, True),
        (False, 49, True),
        (False, 50, False),
        (False, 51, False),
    ],
)
def test_a_refused_token_is_renewed_so_often(
    is_token_fresh: bool, generation: int, is_renewed: bool
) -> None:
    verdict = judge(
        ExitReport(ending=Ending.TOKEN_REFUSED, info="expired"),
        predecessor="",
        generation=generation,
        is_token_fresh=is_token_fresh,
    )

    if is_renewed:
        assert verdict == Expired("expired")
    else:
        assert isinstance(verdict, Final)
        assert verdict.state is State.FAILED
        assert f"refused {generation + 1} tokens (expired)" in verdict.info


def test_a_token_is_taken_for_fresh_unless_it_is_said_otherwise() -> None:
    refused = ExitReport(ending=Ending.TOKEN_REFUSED, info="expired")

    assert isinstance(judge(refused, predecessor="", generation=3), Final)
    assert isinstance(judge(refused, predecessor="", generation=2), Expired)


@pytest.mark.parametrize(
    ("ending", "seconds", "counts", "is_ours"),
    [
        (Ending.GIVEN_UP, 0.0, False, False),
        (Ending.UNREACHABLE, 10.0, False, True),
        (Ending.WRONG_ADDRESS, 1.0, False, True),
        (Ending.HUNG, 1.0, True, True),
        (Ending.RAISED, 1.0, True, True),
        (Ending.DIED, 0.0, True, False),
    ],
)
def test_what_has_not_started_waits_this_long_for_the_next_worker(
    ending: Ending, seconds: float, counts: bool, is_ours: bool
) -> None:
    verdict = judge(ExitReport(ending=ending), predecessor="", generation=0)

    assert isinstance(verdict, Back)
    assert (verdict.delay_seconds, verdict.counts, verdict.is_ours) == (seconds, counts, is_ours)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (-9, "the task process was ended by SIGKILL"),
        (-1, "the task process was ended by SIGHUP"),
        (0, "the task process exited with code 0"),
        (1, "the task process exited with code 1"),
    ],
)
def test_only_a_negative_code_is_a_signal(code: int, text: str) -> None:
    assert exit_text(ExitReport(ending=Ending.DIED, exit_code=code)) == text
