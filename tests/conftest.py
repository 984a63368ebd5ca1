"""Its place makes the modules beside it importable by the tests."""

import daemon  # noqa: F401  # sets the environment before any test imports onnxruntime
