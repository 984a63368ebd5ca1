"""Makes the helpers beside this file importable by the tests, and keeps hypothesis from judging by the clock."""

from hypothesis import HealthCheck, settings

import daemon  # noqa: F401  # sets the environment before any test imports onnxruntime

settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")
