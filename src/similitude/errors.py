"""The one exception that is the user's to mend."""


class UserError(ValueError):
    """Bad input, told in one sentence: what is wrong, where, and what to do.

    The command line prints the sentence and exits with code 2; from Python it is a ``ValueError``.
    """
