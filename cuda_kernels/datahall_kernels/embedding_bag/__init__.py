"""Sums and means of rows of a table, bag by bag."""
