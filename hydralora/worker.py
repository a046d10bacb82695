"""`python -m hydralora.worker RUN_DIR`: the command of cluster jobs that an older version submitted."""

from hydralora.training.worker import main

if __name__ == "__main__":
    raise SystemExit(main())
