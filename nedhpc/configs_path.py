"""Where the ready configs are: in an installed package, or in a checkout."""

from pathlib import Path

from nedhpc.errors import UsageError


def configs_folder() -> Path:
    """The folder of the ready configs. Local.

    A wheel carries it as nedhpc/configs; in a checkout it is configs/ beside the package.

    Raises:
        UsageError: neither is there.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "configs", package.parent / "configs"):
        if any(folder.glob("*.toml")):
            return folder
    raise UsageError(
        f"the ready configs are missing: neither {package / 'configs'} nor "
        f"{package.parent / 'configs'} holds one; install nedhpc again, or give your own config"
    )
