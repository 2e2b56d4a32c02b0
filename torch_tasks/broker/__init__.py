"""The one way to reach the broker, and Celery's results on it."""
