"""Each Python block of CONTRIBUTING.md runs in its own process and does what its text says."""

import re
import subprocess
import sys

import pytest
from processes import ROOT

BLOCKS = re.findall(r"^```python\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)

CHECKS = {
    "Disk": """
unit = np.random.default_rng(0).random((1000, 2))
for name, radius in (("interior", 2 / 3), ("boundary", 1)):
    x, accepted = Disk().parts[name].points(unit[:, : Disk().parts[name].unit_dim])
    assert accepted.all() and abs(np.linalg.norm(x, axis=1).mean() - radius) < 0.03
assert np.array_equal(Disk().parts["boundary"].normal(x), x)
""",
    "PseudoHuber": """
import torch
term = PseudoHuber("misfit", on="data", jets=("u",))
density = term.density(torch.tensor([[0.0], [1e-3], [1e3]], dtype=torch.float64))
torch.testing.assert_close(density, torch.tensor([0, 5e-7, 999.0005], dtype=torch.float64))
""",
    "Slope": """
from nedhpc.flows.metrics import find
assert find("slope") is Slope
""",
    "SignDescent": """
import torch
class Quadratic:
    def gradient(self, theta_P, t):
        return theta_P, None
rule = SignDescent(Quadratic(), SignDescent.Settings(rate=0.5))
theta_P, dt, info = rule.step(torch.tensor([2.0, -3.0]), 0.0, 0.1)
assert theta_P.tolist() == [1.5, -2.5] and dt == 0.1
""",
    "SmallEnergy": """
from types import SimpleNamespace
def moment(energy):
    return SimpleNamespace(measured=lambda: SimpleNamespace(energy=energy))
assert SmallEnergy().step(None, moment(1e-9)).status == "converged"
assert SmallEnergy().step(None, moment(1.0)) is None
""",
    "ZeroAtTheEnds": """
import torch
v = torch.ones(3, 1, dtype=torch.float64)
x = torch.tensor([[0.0], [0.5], [1.0]], dtype=torch.float64)
assert ZeroAtTheEnds()(v, x).flatten().tolist() == [0, 0.25, 0]
""",
}


def class_of(block):
    return re.search(r"^class (\w+)", block, re.M).group(1)


def test_each_block_has_a_check():
    assert [class_of(block) for block in BLOCKS] == list(CHECKS)


@pytest.mark.parametrize("block", BLOCKS, ids=class_of)
def test_a_block_does_what_its_text_says(block, tmp_path):
    (tmp_path / "block.py").write_text(block + CHECKS[class_of(block)])
    done = subprocess.run(
        [sys.executable, "block.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
