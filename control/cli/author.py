"""In whose name an order is given: the name of the user at this terminal, kept with what was ordered."""

import getpass


def author() -> str:
    """Who sits at this terminal."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container without a name for its user
        return "operator"
