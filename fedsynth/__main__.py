"""`python -m fedsynth` does what the console script does."""

from fedsynth.cli import main

if __name__ == "__main__":
    main()
