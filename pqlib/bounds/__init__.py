"""Pruning and quantizing one channel: exact optima, heuristics and certified bounds."""
