"""`python -m hydralora.worker RUN_DIR`, as jobs say that an older version handed to a cluster."""

from hydralora.training.worker import main

if __name__ == "__main__":
    raise SystemExit(main())
