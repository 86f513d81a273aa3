"""The rolling restart of a whole Airflow under load: `python -m tests.rolling`."""
