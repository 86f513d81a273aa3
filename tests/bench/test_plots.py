from __future__ import annotations

from tests.bench.plots import pictures
from tests.bench.report import as_json, results
from tests.bench.sample import Sample


def test_contenders_of_one_kind_share_a_picture() -> None:
    samples = [
        Sample("heavy_dag", contender, 1.0)
        for contender in ("nats", "celery", "start-nats", "start-celery", "start-nats-off")
    ]
    document = as_json({}, results(samples, ["heavy_dag"], {}))
    found = {
        kind: list(bars) for kind, bars in pictures("heavy_dag", document["keys"]["heavy_dag"])
    }
    assert found == {
        "heavy_dag": ["nats", "celery"],
        "heavy_dag-start": ["nats", "celery", "nats-off"],
    }


def test_a_contender_alone_is_compared_with_nothing() -> None:
    samples = [Sample("heavy_dag", "nats", 1.0), Sample("heavy_dag", "start-nats", 1.0)]
    document = as_json({}, results(samples, ["heavy_dag"], {}))
    assert list(pictures("heavy_dag", document["keys"]["heavy_dag"])) == []
