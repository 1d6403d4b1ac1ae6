"""Three PostgreSQL hosts in, one highly available PostgreSQL out."""

__version__ = "0.1.0"
