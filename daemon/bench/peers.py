"""Other programs in the same run, as far as they are installed; for one that is not, the result says so."""

from pathlib import Path
from typing import Any

from daemon.bench.peer_llama import measure_llama
from daemon.bench.peer_programs import measure_programs
from daemon.bench.peer_transformers import measure_transformers
from daemon.engine.bundle import Bundle


def measure_peers(
    bundle: Bundle, figures: dict[str, Any], folder: Path, *, rounds: int, llama_bench: str | None
) -> dict[str, Any]:
    """By name: what each needs, or why it is ``absent``. ``figures`` are ours, which some are set against."""
    llama = measure_llama(bundle, figures["threads"], llama_bench)
    stages = figures["frame_ms"]
    if "backbone" in llama:
        theirs = llama["backbone"]["llama_bench_step_ms"]
        llama["backbone"]["frame_stage_to_llama_bench"] = round(stages["backbone"] / theirs, 3)
        steps = bundle.manifest.audio.num_codebooks
        theirs = steps * llama["depth_decoder"]["llama_bench_step_ms"]
        llama["depth_decoder"]["frame_stage_to_llama_bench"] = round(stages["depth"] / theirs, 3)
    return {
        **measure_programs(folder, rounds),
        "llama-bench": llama,
        "transformers": measure_transformers(bundle, 1 / figures["frames_per_s"]),
    }
