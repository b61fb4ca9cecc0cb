"""Compile a LightGBM model to machine code: compile.py MODEL.txt OBJECT.o

Started by `model.py` for every instance that finds no compiled object; a lock lets one of them work
and the others leave. A failure is written beside the object so that it is not tried again until the
server starts anew.
"""

import fcntl
import os
import sys
from pathlib import Path


def compile_once(source: Path, compiled: Path) -> None:
    """Leave `compiled` in one step, or `compiled` with the suffix .failed and a line in the log."""
    compiled.parent.mkdir(parents=True, exist_ok=True)
    failed = compiled.with_suffix(".failed")
    with compiled.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if compiled.exists() or failed.exists():
            return
        os.nice(19)
        fresh = compiled.with_suffix(f".{os.getpid()}")
        try:
            _compile(source, fresh)
            fresh.replace(compiled)
        except Exception as error:  # noqa: BLE001  # whatever the compiler raises, LightGBM goes on
            failed.write_text(f"{error}\n")
            sys.stderr.write(f"fil: {source} does not compile, LightGBM goes on: {error}\n")
        finally:
            fresh.unlink(missing_ok=True)


def _compile(source: Path, target: Path) -> None:
    import lleaves

    lleaves.Model(model_file=str(source)).compile(cache=str(target))


if __name__ == "__main__":
    compile_once(Path(sys.argv[1]), Path(sys.argv[2]))
