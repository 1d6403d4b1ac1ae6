"""What PostgreSQL makes of a member's name."""


def slot_name(name: str) -> str:
    """A member's physical slot: its name in the letters that PostgreSQL allows, 63 at most.

    Standbys that confirm commits are told apart by name without regard to case; names that differ here differ there.
    """
    kept = "".join(c if c.isascii() and c.isalnum() else "_" for c in name.lower())
    return f"appliance_{kept}"[:63]
