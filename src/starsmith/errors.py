"""The one exception that people see.

A `StarsmithError` says what is wrong, what was got, what is allowed and how to fix it, in one to three lines.
The command line prints its text without a traceback and exits with its `exit_code`; every other exception is
a defect of ours and keeps its traceback.
"""


class StarsmithError(Exception):
    """Something the user can mend. `exit_code` 2: wrong input; 3: the machine (disk, network, tools); 1: other."""

    exit_code = 1


class InputError(StarsmithError):
    """A recipe, target or file given by the user is wrong."""

    exit_code = 2


class MachineError(StarsmithError):
    """The machine refuses: a full disk, an absent tool, a registry that does not answer."""

    exit_code = 3
