"""Makes the helpers beside this file importable by the tests."""

import daemon  # noqa: F401  # sets the environment before any test imports onnxruntime
