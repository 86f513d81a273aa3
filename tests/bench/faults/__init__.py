"""What becomes of tasks when something breaks: `python -m tests.bench --faults`."""
