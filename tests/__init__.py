"""Tests; each mirrors a module of src/muster."""

import hypothesis

# A busy machine is slow: no example is failed for its time.
hypothesis.settings.register_profile("muster", deadline=None)
hypothesis.settings.load_profile("muster")
