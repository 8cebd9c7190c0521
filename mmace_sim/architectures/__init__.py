"""Energy models beside the package's own: the published one, and magnetic models around foundations."""
