"""What the stream from trainings to the server stands: load, kills, viewers."""
