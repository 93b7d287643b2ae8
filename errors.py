"""What goes wrong through no fault of the program."""


class UserError(Exception):
    """Something that the user can mend; the message says in one line what, and how."""
