"""The `starsmith` command, also as `python -m starsmith`.

Worker processes import the main module again; so it holds nothing, and imports the command line when it is run.
"""


def main() -> None:
    from starsmith import cli

    cli.main()


if __name__ == "__main__":
    main()
