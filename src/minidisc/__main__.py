"""``python -m minidisc``."""

from minidisc.cli.main import main

if __name__ == "__main__":
    main()
