"""The one exception that ends a run without a traceback."""


class UserError(Exception):
    """An error the user can fix; its message is one line that says what to do."""
