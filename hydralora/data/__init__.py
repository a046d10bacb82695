"""From a file to batches: reading, chat templates, batch order."""
