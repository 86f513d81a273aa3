"""Moves a real Celery Airflow to NATS and back, under load."""
