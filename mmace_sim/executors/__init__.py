"""Who computes: this process, or many workers on this machine and on clusters."""
