"""Real servers, schedulers and workers under a seeded storm of faults: `python -m tests.chaos`."""
