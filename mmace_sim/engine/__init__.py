"""How a run goes: batches that refill, what is on disk after each structure, how it ended, what it writes."""
