"""Whatever a problem file returns or raises, `nedhpc check` says what is wrong, and exits with 2.

Each case is a file that a user could write by mistake. None may give a traceback or a run.
"""

import time

import pytest
import torch

from nedhpc.cli.main import main

GOOD = {
    "before": "",
    "domain": "domain = nedhpc.Box([0.0], [1.0])",
    "init": "",
    "term": "@nedhpc.residual()\n    def pde(self, x, j): return j.u - 1",
    "more": "",
}
FILE = """
import sys, numpy as np, torch, nedhpc
{before}
class P(nedhpc.Problem):
    {domain}
    {init}
    {term}
    {more}
"""
CONFIG = '[problem]\nname = "p.py:P"\n[network]\nhidden = [4]\n[sampling]\ninterior = 20\n'


def term(body, arguments="self, x, j"):
    return {"term": f"@nedhpc.residual()\n    def pde({arguments}): {body}"}


def init(body, arguments="self"):
    return {"init": f"def __init__({arguments}): {body}"}


def exact(body, arguments="self, x"):
    return {"more": f"def exact({arguments}): {body}"}


def metrics(body, arguments="self, x, u, y"):
    return {"more": f"def metrics({arguments}): {body}"} | {
        "init": "def exact(self, x): return x[:, 0]"
    }


RETURNS = {
    "a float": "1.0",
    "an int": "0",
    "None": "None",
    "a bool": "True",
    "text": "'u'",
    "an array": "j.u.detach().numpy()",
    "a tuple": "(j.u, j.u)",
    "a list": "[j.u]",
    "a dictionary": "{'u': j.u}",
    "a class": "nedhpc.Problem",
    "NotImplemented": "NotImplemented",
    "a scalar tensor": "j.u.sum()",
    "too few points": "j.u[:-1]",
    "too many points": "torch.cat([j.u, j.u])",
    "three axes": "j.u[:, None, None]",
    "no components": "j.u[:, None][:, :0]",
    "no points": "j.u[:0]",
    "a transposed value": "torch.stack([j.u, j.u], 0)",
    "a broadcast": "j.u + x",
    "complex numbers": "j.u + 1j",
    "single precision": "j.u.float()",
    "half precision": "j.u.half()",
    "integers": "j.u.long()",
    "booleans": "j.u > 0",
    "a detached value": "j.u.detach()",
    "a constant": "torch.ones_like(x[:, 0])",
    "a sparse tensor": "j.u.to_sparse()",
    "a meta tensor": "j.u.to('meta')",
    "a mean": "j.u - j.u.mean()",
    "a maximum": "j.u / j.u.abs().max()",
    "a sorted value": "j.u.sort().values",
    "a rolled value": "j.u - j.u.roll(1)",
    "random numbers": "j.u - torch.rand(len(x))",
    "a sign": "torch.sign(j.u - 5)",
    "points changed in place": "x.mul_(2)[:, 0] * j.u",
    "no gradient mode": "(torch.set_grad_enabled(False), j.u - 1)[1]",
    "an unknown jet": "j.lapu",
    "an unknown output": "j.v_x",
    "an undeclared coefficient": "j.u * c.nu",
    "a wrong column": "j.u - x[:, 1]",
    "a division": "j.u / 0 if len(x) < 0 else 1 / 0",
    "exit": "sys.exit(0)",
    "a keyword": "raise_",
    "a recursion": "self.pde(x, j)",
    "an assertion": "j.u.assert_equal(1)",
    "a jet that is called": "j.u()",
    "a missing attribute": "j.u - self.rate",
}
SIGNATURES = {
    "no arguments": "",
    "no self": "x",
    "six arguments": "self, x, j, c, y, n, t",
    "targets without data": "self, j, y",
    "normals in the interior": "self, j, n",
    "times without time": "self, j, t",
    "variable arguments": "self, *args",
    "keywords": "self, **options",
    "keyword-only": "self, *, x, j",
    "the same twice": "self, j, u",
}
CASES = {f"a term returns {name}": term(f"return {value}") for name, value in RETURNS.items()}
CASES["a term returns an undeclared coefficient"] = term("return j.u * c.nu", "self, x, j, c")
CASES |= {f"a term has {name}": term("return j.u - 1", args) for name, args in SIGNATURES.items()}
CASES["a term has the same twice"] = term("return j.u - u", "self, j, x, u, x1, y1, n")
CASES |= {
    "a term raises": term("raise ValueError('no')"),
    "a term raises without text": term("raise ValueError"),
    "a term raises a long text": term("raise ValueError('x' * 10**6)"),
    "a term raises exit": term("raise SystemExit(3)"),
    "a term is no method": {"term": "terms = [nedhpc.Residual('pde')]\n    pde = 3"},
    "a term has no method": {"term": "terms = [nedhpc.Residual('pde')]"},
    "a term is on no part": {"term": "@nedhpc.residual('wall')\n    def a(self, j): return j.u"},
    "a term is on a list": {"term": "@nedhpc.residual(['x'])\n    def a(self, j): return j.u"},
    "a term has no weight": {
        "term": "@nedhpc.residual(weight=None)\n    def a(self, j): return j.u"
    },
    "a term has a wrong jet": {
        "term": "@nedhpc.residual(jets=('lap_v',))\n    def a(self, j): return j.u"
    },
    "a term has jets that are numbers": {
        "term": "@nedhpc.residual(jets=(1,))\n    def a(self, j): return j.u"
    },
    "terms are text": {"term": "terms = 'pde'"},
    "terms are a term": {"more": "terms = nedhpc.Residual('pde')"},
    "terms are None": {"more": "terms = None"},
    "terms hold text": {"more": "terms = ['pde']"},
    "there are no terms": {"term": "pass"},
    "the constructor raises": init("raise RuntimeError('no')"),
    "the constructor exits": init("sys.exit()"),
    "the constructor needs an argument": init("pass", "self, rate"),
    "the constructor has a strange type": init("pass", "self, a: torch.Tensor = None, *, b: 'X'"),
    "the constructor recurses": init("self.__init__()"),
    "the constructor is positional-only": init("pass", "self, a, /"),
    "the file raises": {"before": "1 / 0"},
    "the file exits": {"before": "sys.exit(0)"},
    "the file is no Python": {"before": "def :"},
    "the file imports nothing": {"before": "import no_such_module"},
    "the class is no problem": {"before": "", "domain": "pass\nclass P:\n    pass"},
    "there is no domain": {"domain": "pass"},
    "the domain is a list": {"domain": "domain = [0, 1]"},
    "the domain is a class": {"domain": "domain = nedhpc.Box"},
    "the domain is empty": {"domain": "domain = nedhpc.Box([0.0], [0.0])"},
    "the domain is not finite": {"domain": "domain = nedhpc.Box([0.0], [np.inf])"},
    "the domain raises": {"domain": "@property\n    def domain(self): raise ValueError('no')"},
    "the outputs are text": {"more": "outputs = 'uv'"},
    "the outputs are numbers": {"more": "outputs = (1,)"},
    "the outputs are a number": {"more": "outputs = 2"},
    "the coefficients are a list": {"more": "coefficients = ['nu']"},
    "a coefficient is text": {"more": "coefficients = {'nu': 'a'}"},
    "a coefficient is not finite": {"more": "coefficients = {'nu': np.nan}"},
    "a coefficient is a tensor": {"more": "coefficients = {'nu': torch.ones(2)}"},
    "the data are a tuple": {"more": "data = (np.ones((5, 1)), np.ones((5, 1)))"},
    "hard is a list": {"more": "hard = [0.0]"},
    "hard is a class": {"more": "hard = nedhpc.Layer"},
    "hard is on no part": {"more": "hard = {'wall': {'u': 0.0}}"},
    "hard is text": {"more": "hard = {'boundary': {'u': 'a'}}"},
    "hard raises": {"more": "hard = {'boundary': {'u': lambda x: 1 / 0}}"},
    "hard exits": {"more": "hard = {'boundary': {'u': lambda x: sys.exit(0)}}"},
    "exact is a float": exact("return 1.0"),
    "exact is None": exact("return None"),
    "exact is an array": exact("return x[:, 0].numpy()"),
    "exact is a row": exact("return x.T"),
    "exact is a scalar": exact("return x.sum()"),
    "exact is complex": exact("return x[:, 0] + 1j"),
    "exact mixes points": exact("return x[:, 0] - x.mean()"),
    "exact raises": exact("raise ValueError('no')"),
    "exact exits": exact("sys.exit(0)"),
    "exact has no argument": exact("return 1.0", "self"),
    "exact is a number": {"more": "exact = 3.0"},
    "metrics are a float": metrics("return 1.0"),
    "metrics are None": metrics("return None"),
    "a metric is a scalar": metrics("return {'max': (u - y).abs().max()}"),
    "a metric is a float": metrics("return {'max': 1.0}"),
    "a metric has a slash": metrics("return {'a/b': u[:, 0]}"),
    "a metric has no name": metrics("return {1: u[:, 0]}"),
    "a metric is complex": metrics("return {'a': u[:, 0] + 1j}"),
    "metrics raise": metrics("raise ValueError('no')"),
    "metrics exit": metrics("sys.exit(0)"),
    "metrics have no arguments": metrics("return {}", "self"),
}
for number, data in enumerate(
    (
        "[[0.0]], [[0.0]]",
        "np.ones(5), np.ones(5)",
        "np.ones((5, 2)), np.ones((5, 1))",
        "np.ones((5, 1)), np.ones((4, 1))",
        "np.ones((5, 1)), np.ones((5, 1)) * np.nan",
        "np.ones((0, 1)), np.ones((0, 1))",
        "np.ones((5, 1), complex), np.ones((5, 1))",
        "np.full((5, 1), 'a'), np.ones((5, 1))",
        "np.ones((5, 1), object), np.ones((5, 1))",
        "np.ones((5, 1)), np.ones((5, 1)), held_out_x=np.ones((2, 1))",
    )
):
    CASES[f"the data are wrong ({number})"] = {
        "more": f"data = nedhpc.DataSet({data})",
        "term": "@nedhpc.residual('data')\n    def fit(self, j, y): return j.values - y",
    }


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_problem_file_is_refused(tmp_path, capsys, name):
    (tmp_path / "p.py").write_text(FILE.format_map(GOOD | CASES[name]))
    (tmp_path / "case.toml").write_text(CONFIG)
    begun = time.monotonic()
    code = main(["check", str(tmp_path / "case.toml")])
    out, err = capsys.readouterr()
    assert code == 2 and time.monotonic() - begun < 5, out
    assert "Traceback" not in err and 20 < len(err) < 2000, err
    assert torch.is_grad_enabled()


def test_the_problem_that_the_cases_change_is_good(tmp_path):
    (tmp_path / "p.py").write_text(FILE.format_map(GOOD))
    (tmp_path / "case.toml").write_text(CONFIG)
    assert main(["check", str(tmp_path / "case.toml")]) == 0
