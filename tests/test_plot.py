"""What prevents a figure from being written is a usage error that says so."""

import pytest
from matplotlib.figure import Figure

from nedhpc.errors import UsageError
from nedhpc.postprocess.plot import _save


@pytest.mark.parametrize(
    "name, message",
    [
        ("none/a.png", "No such file or directory; give another place"),
        ("a.xyz", "unknown format 'xyz'; allowed: .*png"),
        ("a", "unknown format ''"),
        ("/dev/full/a.png", "Not a directory"),
    ],
)
def test_what_cannot_be_written_is_a_usage_error(tmp_path, name, message):
    with pytest.raises(UsageError, match=message):
        _save(Figure(), tmp_path / name)


def test_a_full_disk_is_a_usage_error(tmp_path):
    (tmp_path / "a.png").symlink_to("/dev/full")
    with pytest.raises(UsageError, match="No space left on device"):
        _save(Figure(), tmp_path / "a.png")
