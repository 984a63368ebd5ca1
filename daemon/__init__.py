"""Crier: the running program. A text arrives over MQTT or a Unix socket and is spoken.

The environment is set here, before any native library can load, so that it holds for both commands and for tests:
onnxruntime's Linux wheel records telemetry unless told not to, OpenMP's default spinning takes whole cores from other
programs, numpy's OpenBLAS starts threads that have nothing to do, ggml would call a debugger on a failed assertion, and
pydantic would read the metadata of every package that is installed, to find plugins.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ["GGML_NO_BACKTRACE"] = "1"
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
