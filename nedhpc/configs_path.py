"""Where the ready configs are: inside an installed package, or beside it in a checkout. Local."""

from pathlib import Path


def configs_folder() -> Path:
    """The folder of the ready configs."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"
