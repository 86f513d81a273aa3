"""Answers what changes for a team that comes from Celery: what to set, and what to decide."""
