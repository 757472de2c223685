"""A saved decoder writes in a fresh process what the model in memory writes."""

import numpy as np
import pytest
import torch

from minidisc.architectures import architecture_for
from minidisc.extraction import extract, save_small
from tests.integration.fresh import run
from tests.unit.families import tiny_tokenizer
from tests.unit.test_causal_lm import FAMILIES, SPEC, UNIFORM
from tests.unit.test_nested import logits

PLAIN = [family for family in FAMILIES if architecture_for(family.family).plain_if_uniform]

SCRIPT = """
import json, pathlib, sys
import numpy as np, torch
folder, known = pathlib.Path(sys.argv[1]), sys.argv[2] == "minidisc"
if known:
    import minidisc
else:
    class Hide:
        @staticmethod
        def find_spec(name, *rest):
            if name.partition(".")[0] == "minidisc":
                raise ModuleNotFoundError(name)
    sys.meta_path.insert(0, Hide)
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, pipeline
def check(path, **trust):
    saved = np.load(path / "expected.npz")
    model = AutoModelForCausalLM.from_pretrained(path, **trust).eval()
    with torch.no_grad():
        assert np.abs(model(torch.from_numpy(saved["ids"])).logits.numpy() - saved["logits"]).max() <= 1e-5, path
    # For some families transformers takes the class of the tokenizer from the model's type, and not from its files.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path)
    write = pipeline("text-generation", model=str(path), tokenizer=tokenizer, device="cpu", **trust)
    text = write(sys.argv[3], max_new_tokens=5, do_sample=False, return_full_text=False)[0]["generated_text"]
    report[path.parent.name][path.name] = [type(model).__name__, type(model).__module__, text]
report = {"own": {}, "uniform": {}}
# Plain checkpoints first, and where nothing of minidisc has been run.
for path in [] if known else sorted(folder.glob("uniform/*")):
    check(path)
for path in sorted(folder.glob("own/*")):
    check(path, **{} if known else {"trust_remote_code": True})
print(json.dumps(report))
"""


PROMPT = "w10 w20"


def written(model):
    """What comes after the prompt, word by word: the full pass again for every one."""
    tokenizer = tiny_tokenizer()
    prompt = tokenizer(PROMPT)["input_ids"]
    ids = list(prompt)
    while len(ids) < len(prompt) + 5 and ids[len(prompt) :][-1:] != [model.config.eos_token_id]:
        ids.append(int(logits(model, {"input_ids": torch.tensor([ids])})[0, -1].argmax()))
    return tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """For every family a model with its own widths in every layer, and one with equal ones, if that makes it plain."""
    folder = tmp_path_factory.mktemp("decoders")
    for kind, spec, families in (("own", SPEC, FAMILIES), ("uniform", UNIFORM, PLAIN)):
        for decoder in families:
            model = extract(decoder.causal_model(), spec)
            ids = decoder.inputs(padding=False)["input_ids"]
            save_small(model, tiny_tokenizer(), folder / kind / decoder.name)
            np.savez(folder / kind / decoder.name / "expected.npz", ids=ids, logits=logits(model, {"input_ids": ids}))
            (folder / kind / decoder.name / "written.txt").write_text(written(model))
    return folder


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("minidisc", {"own": "minidisc"}),
        # Where minidisc is not installed.
        ("code", {"own": "transformers_modules", "uniform": "transformers"}),
    ],
)
def test_in_a_fresh_process(saved, tmp_path, way, expected):
    report = run(SCRIPT, tmp_path, saved, way, PROMPT)
    for kind, package in expected.items():
        assert report[kind].keys() == {decoder.name for decoder in (FAMILIES if kind == "own" else PLAIN)}
        for decoder in FAMILIES if kind == "own" else PLAIN:
            name, module, text = report[kind][decoder.name]
            assert module.partition(".")[0] == package
            assert name == ("MiniDisc" if kind == "own" else "") + decoder.causal_class.__name__
            made = saved / kind / decoder.name
            assert text.split() == (made / "written.txt").read_text().split()
            assert (made / "modeling_minidisc.py").exists() == (kind == "own")
