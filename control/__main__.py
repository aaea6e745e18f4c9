"""`python -m control` is `emass`."""

from control.cli.__main__ import main

if __name__ == "__main__":
    main()
