"""A Python program in an interpreter that is already there.

Starting an interpreter costs more than all of a small program's tests. A process that confines itself needs no new
executable, so on the landlock level the launcher forks and its child, once confined, runs the source as
`python main.py` would: as `__main__`, with the standard library alone, an uncaught exception through
`sys.excepthook`, threads awaited, exit functions called, buffers flushed, its objects let go.

For that the launcher runs with the flags and the environment of a program (`interpreter.Interpreter`), so a fork
holds nothing of the caller's: no environment with secrets, no other packages. What remains different: modules of
the standard library that the launcher uses are already in `sys.modules`, and the recursion limit counts the
launcher's frames, so it is raised by as many.
"""

import atexit
import gc
import os
import signal
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import Final, NoReturn

_PACKAGE: Final = __name__.partition(".")[0]
_STATUS_OF_LOST_OUTPUT: Final = 120
"""As the interpreter's own."""


def run(path: str, environment: dict[str, str], package_folder: str) -> NoReturn:
    """Becomes the program at `path`; the caller has confined this process.

    Args:
        path: of its source.
        environment: all that it gets.
        package_folder: where on the search path our own package lies.
    """
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # as an interpreter does when it starts
        signal.signal(number, signal.SIG_IGN)
    sys.argv = [path]
    sys.path[:] = [folder for folder in sys.path if folder != package_folder]
    for name in [name for name in sys.modules if name.partition(".")[0] == _PACKAGE]:
        del sys.modules[name]
    main = ModuleType("__main__")
    main.__dict__.update(
        __file__=path,
        __cached__=None,
        __builtins__=sys.modules["builtins"],
        __annotations__={},
        __loader__=SourceFileLoader("__main__", path),
    )
    sys.modules["__main__"] = main
    sys.setrecursionlimit(sys.getrecursionlimit() + _num_frames())
    gc.freeze()  # what is the launcher's is not the program's to look through
    _end(_status_of(path, main), main)


def _status_of(path: str, main: ModuleType) -> int:
    """Runs the source and returns the exit status that the interpreter would give."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            code = compile(file.read(), path, "exec", dont_inherit=True)
    except BaseException as error:  # a fault of the source is shown without a traceback
        return _shown(error.with_traceback(None))
    try:
        exec(code, main.__dict__)  # noqa: S102 - what a sandbox is for
    except SystemExit as leaving:
        if leaving.code is None or isinstance(leaving.code, int):
            return (leaving.code or 0) & 0xFF
        print(leaving.code, file=sys.stderr)
        return 1
    except BaseException as error:
        above = error.__traceback__.tb_next if error.__traceback__ else None
        return _shown(error.with_traceback(above))
    return 0


def _end(status: int, main: ModuleType) -> NoReturn:
    """What an interpreter does at its end, in its order, without tearing down what the launcher had loaded: that
    would touch, and so copy, every page of it."""
    if (threads := sys.modules.get("threading")) is not None:
        threads._shutdown()
    atexit._run_exitfuncs()
    flushed = _flush()
    main.__dict__.clear()
    os._exit(status if _flush() and flushed else _STATUS_OF_LOST_OUTPUT)


def _flush() -> bool:
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except Exception:  # a program's own stream may raise anything
            return False
    return True


def _shown(error: BaseException) -> int:
    sys.excepthook(type(error), error, error.__traceback__)
    return 1


def _num_frames() -> int:
    frame, number = sys._getframe(1), 0
    while frame.f_back is not None:
        frame, number = frame.f_back, number + 1
    return number + 1
