"""What a Celery worker does otherwise under the bridge: how messages start, how pools end."""
