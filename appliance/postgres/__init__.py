"""The local PostgreSQL instance: one data directory, its settings, its long work and its answers.

The postmaster itself is started and ended by the guard; this package says how, and looks.
"""
