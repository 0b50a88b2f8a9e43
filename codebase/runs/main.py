"""The run scripts' main function; errors are printed in one line, with an exit status."""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence

from codebase.machine import tuning
from codebase.machine.files import one_line
from codebase.project import UserError
from codebase.runs import flags
from codebase.runs.experiment import Experiment
from codebase.runs.flags import end

INSTALL = "python -m pip install -r requirements.txt"
NO_MEMORY = ("you tried to allocate", "out of memory")  # in torch's errors, of the CPU and of CUDA


def main(experiment: Experiment, argv: Sequence[str] | None = None) -> None:
    """Train and report, or evaluate, as the command line specifies.

    Args:
        experiment: model, data and evaluation
        argv: the flags; None: the process's command line
    """
    with errors_in_one_line():
        args = flags.parse(experiment, argv)
        tuning.load_torch()
        args.device = tuning.pick_device(args.device)
        tuning.tune_process(args.threads)
        # Imported only now: --help and wrong flags do not wait for torch.
        if not args.train:
            from codebase.runs.evaluation import evaluate_saved

            evaluate_saved(experiment, args)
        elif args.replicates:
            from codebase.runs.replicates import replicate

            replicate(experiment, args)
        else:
            from codebase.runs.training import train_run

            train_run(experiment, args)


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
    """End the process with one line and an exit status if the code inside fails.

    The status is 2 for an invalid request, such as a wrong flag, a missing run or too little
    memory; 1 for a failure during the run, such as a full disk or a loss that is not finite; 130
    after Ctrl-C or SIGTERM.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # consoles may lack some characters
    with contextlib.suppress(ValueError):  # only the main thread may set it
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # it raises KeyboardInterrupt
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt as stopped:
        end(130, str(stopped) or "stopped")
    except (UserError, FloatingPointError) as error:
        end(2 if isinstance(error, UserError) else 1, f"error: {error}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("codebase"):
            raise
        end(2, f"error: {error}: activate its environment, or run {INSTALL}")
    except NotImplementedError as error:
        if not error.args:  # a blank of the homework's starter
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{place.name} ({place.filename}, line {place.lineno})"
            end(1, f"error: {where} is not written yet")
        end(1, f"error: {one_line(error)}; --device cpu supports every operation")
    except BrokenPipeError:  # the reader of the output has what it wants, as in `| head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # otherwise Python flushes it again at exit
        raise SystemExit(1) from None
    except OSError as error:
        path = f"{error.filename}: " if error.filename else ""
        end(1, f"error: {path}{error.strerror or error}")
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(w in str(error) for w in NO_MEMORY):
            raise
        advice = "pass a smaller --batch_size, or use a smaller model"
        end(2, f"error: this machine does not have the memory for that: {advice}")
