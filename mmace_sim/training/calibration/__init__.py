"""What a model does not know, from labelled structures that it has not seen."""
