"""Logits of an exported model, where nothing is installed but onnxruntime and tokenizers (see takeaway.py).

python benchmarks/onnx_alone.py FOLDER LENGTH ROWS < texts.json > logits.json

The texts are run ROWS at a time; LENGTH is the maximum length.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder, length, rows = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.enable_truncation(length)
tokenizer.enable_padding(pad_id=tokenizer.token_to_id("[PAD]"), pad_token="[PAD]")
model = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
names = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
texts, logits = json.load(sys.stdin), []
for start in range(0, len(texts), rows):
    encoded = tokenizer.encode_batch(texts[start : start + rows])
    inputs = {each.name: np.array([getattr(e, names[each.name]) for e in encoded]) for each in model.get_inputs()}
    logits += model.run(["logits"], inputs)[0].tolist()
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"torch", "transformers", "minidisc", "onnx"}, loaded
json.dump(logits, sys.stdout)
