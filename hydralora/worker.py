"""`python -m hydralora.worker RUN_DIR`: the command of cluster jobs that an older version submitted."""

from hydralora.training.worker import run_as_process

if __name__ == "__main__":
    run_as_process()
