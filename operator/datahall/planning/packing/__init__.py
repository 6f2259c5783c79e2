"""Packing: which node and which GPU a pod takes, and what that does to those that come later."""
