"""The one exception that a user's mistake raises."""


class UserError(ValueError):
    """Something the user gave cannot be used.

    The message is one line: what was wrong, what is allowed, what to do. The command line prints it
    without a traceback and exits with code 2.
    """
