import pytest
from transformers import PreTrainedTokenizerFast


@pytest.fixture
def tokenised(monkeypatch):
    """How many texts each call has given to a tokenizer, call by call."""
    given = []
    call = PreTrainedTokenizerFast.__call__

    def counted(self, texts, *args, **kwargs):
        given.append(len(texts))
        return call(self, texts, *args, **kwargs)

    monkeypatch.setattr(PreTrainedTokenizerFast, "__call__", counted)
    return given
