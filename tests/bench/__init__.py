"""The benchmark: this executor beside Celery's and the local one, in one run on one machine."""
