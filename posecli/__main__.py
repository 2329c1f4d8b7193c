"""`python -m posecli` is the same door as the `posecli` command."""

from posecli.cli.main import main

if __name__ == "__main__":
    main()
