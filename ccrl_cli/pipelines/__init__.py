"""One use case a module; each takes a profile and returns plain results."""
