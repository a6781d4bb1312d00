"""Errors that are the user's to mend."""


class InputError(ValueError):
    """Bad input, said in one plain sentence: what is wrong, where, and what to do next.

    The command line prints the sentence and exits with status 2; the dock shows it. Anything else that is raised
    is a defect of ours.
    """


class ReadError(InputError):
    """Pixels cannot be read though the image was opened: its disk or network is gone, or a part is damaged."""
