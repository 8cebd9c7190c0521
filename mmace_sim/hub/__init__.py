"""Models that are not in the package: where they are, how they come here, and where they are kept.

`catalogue` knows what there is on the web, `download` brings a file, `store` keeps models in the user's cache.
Nothing here reads a model or needs torch; `mmace_sim.interop.install` turns what is
fetched into model files.
"""
