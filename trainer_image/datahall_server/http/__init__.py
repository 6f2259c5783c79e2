"""Bytes to instances and scores to bytes: routes, wire types, limits, and which status an error becomes."""
