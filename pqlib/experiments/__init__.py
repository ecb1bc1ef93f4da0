"""Experiments that take minutes to days: a frozen config each, a ledger, a table."""
