"""`python -m nicety.scheduler`: the `nicety` program."""

from .cli import main

if __name__ == "__main__":
    main()
