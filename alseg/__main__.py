"""`python -m alseg` is the `alseg` command."""

import signal
import sys


def main() -> None:
    """Run the command line; whoever interrupts it while it is imported is told so, too."""
    try:
        from alseg.cli.app import main as run

        run()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("alseg: Interrupted.", file=sys.stderr)
        sys.exit(130)
    finally:
        exec("")  # after one that was interrupted, `python -m` would end by that signal instead of with the exit code


if __name__ == "__main__":
    main()
