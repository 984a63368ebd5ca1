"""The verify command's report, and what it says where there is nothing to compare."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from reference_csm import save_hf, small_model, small_tokenizer

from daemon.engine.sampling import Sampling
from daemon.errors import BadRequestError, ModelError
from quantize import verify_bundle
from quantize.convert import convert
from quantize.verify import Report, print_report, verify
from quantize.verify_rows import Row

ROOT = Path(__file__).resolve().parents[2]
STARTER = ROOT / "models" / "starter"
REPORT = Report(
    bundle="models/small",
    reference="checkpoint",
    recipe="q8_0",
    depth_recipe="q8_0",
    rows=[
        Row("backbone hidden", 0.018, 0.03, 0.022, passed=True),
        Row("greedy codes", 0.9, None, None, passed=True, note="first at frame 0, codebook 3"),
    ],
)


def ignore_progress(*_step: object) -> None:
    """No bar."""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small checkpoint and the float32 bundle of it."""
    folder = tmp_path_factory.mktemp("small")
    save_hf(small_model(), folder / "checkpoint")
    small_tokenizer(folder / "checkpoint")
    convert(folder / "checkpoint", folder / "bundle", "f32", ignore_progress)
    return folder


def test_a_report_fails_with_any_of_its_rows():
    """One stage beyond its threshold is enough."""
    failed = dataclasses.replace(REPORT.rows[0], passed=False)
    assert REPORT.passed
    assert not dataclasses.replace(REPORT, rows=[*REPORT.rows, failed]).passed


def test_json_is_the_last_line_of_stdout_and_the_table_is_on_stderr(capsys):
    """What scripts read is alone on stdout."""
    print_report(REPORT, as_json=True)
    out, err = capsys.readouterr()
    content = json.loads(out)
    assert content["passed"] is True
    assert content["rows"][0] == {
        "stage": "backbone hidden",
        "error": 0.018,
        "worst": 0.03,
        "threshold": 0.022,
        "passed": True,
        "note": "",
    }
    assert "backbone hidden" in err


def test_numbers_that_are_not_finite_are_still_json(capsys):
    """A broken stage's NaN is null."""
    broken = Row("depth hidden", float("nan"), float("inf"), 1e-4, passed=False)
    print_report(dataclasses.replace(REPORT, rows=[broken]), as_json=True)
    row = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["rows"][0]
    assert (row["error"], row["worst"]) == (None, None)


def test_the_table_names_what_failed(capsys):
    """In words, not by colour alone."""
    print_report(dataclasses.replace(REPORT, rows=[Row("codec PCM", 1.0, None, 1e-4, passed=False)]), as_json=False)
    assert "FAIL" in capsys.readouterr().out


def test_the_verdict_is_the_last_line_and_the_columns_are_explained(capsys):
    """All stages, or those that failed by name; the codec's test vector alone is no comparison with the reference."""
    failed = [Row(stage, 1.0, None, 1e-4, passed=False) for stage in ("depth hidden", "codec PCM")]
    for report, verdict in (
        (REPORT, "verified: every stage is within its threshold"),
        (dataclasses.replace(REPORT, rows=[*REPORT.rows, *failed]), "not verified: depth hidden, codec PCM"),
        (
            dataclasses.replace(REPORT, reference=""),
            "verified: every stage is within its threshold (the codec's test vector alone: no --reference)",
        ),
    ):
        print_report(report, as_json=False)
        lines = capsys.readouterr().out.splitlines()
        assert any("verdict" in line and "threshold" in line for line in lines[:5])
        assert lines[-2].startswith("error is over the whole stage, worst is that of its worst vector")
        assert lines[-1] == verdict


def test_without_a_reference_the_codec_is_tried_on_its_test_vector(small):
    """A bundle tells where it is run whether its codec works there."""
    report = verify(small / "bundle", None, progress=ignore_progress)
    assert report.passed
    assert {row.stage for row in report.rows} == {"test vector, codes", "test vector, pcm"}


def test_a_bundle_without_a_test_vector_needs_a_reference():
    """The starter's codec has none."""
    with pytest.raises(ModelError, match="give --reference"):
        verify(STARTER, None, progress=ignore_progress)


def test_a_bundle_of_another_model_is_refused(small):
    """Not compared stage by stage."""
    with pytest.raises(ModelError, match=r"widths and codebooks are .* the reference's"):
        verify(STARTER, small / "checkpoint", frames=1, progress=ignore_progress)


@pytest.mark.parametrize(
    ("content", "message"),
    [({}, "no \\*.safetensors file"), ({"model.safetensors": b"torn"}, "transformers cannot load it")],
)
def test_a_reference_that_cannot_be_read_is_named(small, tmp_path, content, message):
    """One line, with the folder."""
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ModelError, match=message) as caught:
        verify(small / "bundle", tmp_path, progress=ignore_progress)
    assert str(tmp_path) in str(caught.value)


def test_no_frames_are_refused(small):
    """There would be nothing to compare."""
    with pytest.raises(BadRequestError, match=r"frames must be 1 to [0-9]+, got 0"):
        verify(small / "bundle", small / "checkpoint", frames=0, progress=ignore_progress)


def test_without_transformers_the_extra_is_named(small, monkeypatch):
    """Who lacks it reads what to install."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "quantize.verify_reference", raising=False)
    monkeypatch.delitem(sys.modules, "quantize.verify_torchtune", raising=False)
    with pytest.raises(ModelError, match=r"needs transformers: pip install -e '.\[verify\]'"):
        verify(small / "bundle", small / "checkpoint", progress=ignore_progress)


def test_only_ties_are_decided_as_the_reference_did():
    """Where its code is as likely to the last bits; a code that is clearly likelier stays the choice."""
    choice = verify_bundle._Choice(np.array([[1, 1, 9]]))
    near, far = np.array([-np.inf, 2.0, 2.00001]), np.array([0.0, 2.0, 2.1])
    chosen = [choice.sample(logits.astype(np.float32), Sampling(0.0, 1), None) for logits in (near, far, near)]
    assert (chosen, choice.ties) == ([1, 2, 2], 1)


def test_torch_is_loaded_only_with_a_reference():
    """The other commands work without it."""
    code = "import sys, quantize.verify; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
