"""transformers' CSM in a bundle's shape: the sizes are the bundle's, and what the memory cannot hold is left out."""

import pytest
from small_csm import speaking_bundle

from daemon.engine.bundle import load_bundle
from daemon.errors import ModelError
from quantize import reference_speed

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A small one."""
    return load_bundle(speaking_bundle(tmp_path_factory.mktemp("speed") / "bundle"))


def test_shape_is_the_bundle_s(bundle):
    """As its GGUF files tell it."""
    config = reference_speed.shape(bundle)
    assert (config.num_codebooks, config.hidden_size, config.num_hidden_layers) == (8, 256, 2)
    depth = config.depth_decoder_config
    assert (depth.backbone_hidden_size, depth.num_attention_heads, depth.head_dim) == (256, 2, 128)


def test_the_fastest_kind_is_found(bundle):
    """Of both number formats and both caches."""
    found = reference_speed.measure(bundle)
    kinds = found["frame_s_by_kind"]
    assert set(kinds) == {f"{dtype} {cache}" for dtype in ("bfloat16", "float32") for cache in ("dynamic", "static")}
    assert found["frame_s"] == kinds[found["best"]] == min(kinds.values()) > 0


def test_what_does_not_fit_is_left_out(bundle, monkeypatch):
    """The larger format alone, and then both, which is an error."""
    need = reference_speed._num_weights(reference_speed.shape(bundle)) * reference_speed._ROOM
    monkeypatch.setattr(reference_speed, "available_bytes", lambda: int(3 * need))
    found = reference_speed.measure(bundle)
    assert found["best"].startswith("bfloat16")
    assert "GB" in found["skipped"]["float32"]
    monkeypatch.setattr(reference_speed, "available_bytes", lambda: 1)
    with pytest.raises(ModelError, match="bfloat16 wants"):
        reference_speed.measure(bundle)
