"""Where the committed results are that chapters read."""

from pathlib import Path


def results_file(name: str, folder: str) -> Path | None:
    """A file of committed results; None if it is not there.

    Parameters
    ----------
    name : str
        With its ending, such as "paper_table1.csv".
    folder : str
        Looked into from the working folder and from the one above it, so that a chapter finds
        "book/results" both from the root and from `notebooks`; "" for none.
    """
    paths = (Path(folder, name), Path("..", folder, name)) if folder else ()
    return next((path for path in paths if path.is_file()), None)
