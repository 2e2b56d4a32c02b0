"""Time: Celery beat's scheduler, whose entries live on the broker."""
