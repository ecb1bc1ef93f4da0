"""Layers of a network as small quadratic problems."""
