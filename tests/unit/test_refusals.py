import numpy as np
import pandas as pd

from minidisc.config import DataSettings
from minidisc.refusals import teacher_warnings
from minidisc.tasks.documents import read_documents
from minidisc.tasks.sources import Source


def test_few_long_texts_have_many_answers():
    source = Source(pd.DataFrame({"text": ["a b"]}), "x", "x", {})
    task = read_documents(DataSettings(), {"train": source})[0]
    labels = np.full((4, 100), 7)
    labels[:, 80:] = -100  # 4 × 79 answers, whose error is 0.056
    assert not teacher_warnings(task, 0.04, labels, (), {})
    (warning,) = teacher_warnings(task, 0.02, labels, (), {})
    assert "on 4 rows where chance is 0.000: it is not fine-tuned for this text." in warning
