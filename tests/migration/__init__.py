"""What changes for a team that comes from Celery."""
