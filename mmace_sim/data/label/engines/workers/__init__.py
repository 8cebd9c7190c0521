"""Programs that run in the environment of another code: each is one file, complete in itself."""
