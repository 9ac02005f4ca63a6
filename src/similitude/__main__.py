"""``python -m similitude``, which is how torchrun starts the command line."""

from similitude.cli import main

if __name__ == "__main__":
    main()
