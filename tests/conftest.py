"""What holds for all tests."""

import gc


def pytest_collection_finish():
    # What torch and transformers have imported by now is never freed. A run collects garbage several times; to look
    # through all of that again took half of a tiny run's time.
    gc.collect()
    gc.freeze()
