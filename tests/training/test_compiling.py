"""What torch.compile needs is asked for before it is used."""

import pytest
import torch
from codec_scene import Interrupted

from training import compiling


@pytest.mark.parametrize(
    ("device", "there", "missing"),
    [
        ("cpu", ("triton",), "g++"),
        ("cuda", ("gcc",), "triton"),
        ("cuda", ("triton",), "a C compiler"),
        ("cuda", ("clang", "triton"), None),
        ("cpu", ("g++",), None),
    ],
)
def test_nothing_is_compiled_without_a_compiler(monkeypatch, capsys, device, there, missing):
    """The module itself runs instead, and what was not found is said."""
    for finder in (compiling.shutil, "which"), (compiling, "find_spec"):
        monkeypatch.setattr(*finder, lambda name: name if name in there else None)
    run, module = Interrupted(), torch.nn.Linear(2, 2)
    run.device = torch.device(device)
    assert compiling.can_compile(run, wanted=True) == (missing is None)
    said = f"training: {missing} not found: nothing is compiled, and every step takes longer\n"
    assert capsys.readouterr().err == (said if missing else "")
    if missing:
        assert compiling.compiled(run, module, wanted=True) == [module]
    assert not compiling.can_compile(run, wanted=False)
