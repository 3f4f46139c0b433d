"""The profile: schema, layered loading, origin of each value."""
