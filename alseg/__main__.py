"""`python -m alseg` is the `alseg` command."""

from alseg.cli.app import main

if __name__ == "__main__":
    main()
