"""What the command line prints as one line, without a traceback."""


class UserError(ValueError):
    """Something the user gave cannot be used.

    The message is one line: what was wrong, what is allowed, what to do. The command line prints it
    without a traceback and exits with code 2.
    """


class ChangedError(UserError):
    """What a run was begun with is another by now; whatever it would train on would be a mixture of both."""


class CheckFailed(RuntimeError):
    """Something that minidisc has made does not pass its own check, and so was not kept.

    The message is one line; the command line prints it without a traceback and exits with code 1.
    """


def first_line(error: BaseException) -> str:
    """The first line of what another library says of an error, or the error's name if it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
