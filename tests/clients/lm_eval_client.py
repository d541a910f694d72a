"""`lm-eval` with `local-completions`, unmodified: loglikelihoods are those of `photonc score`, and a multiple-choice task on
local data is answered better than by chance.

usage: lm_eval_client.py URL MODEL PHOTONC BUNDLE
"""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import lm_eval  # noqa: E402
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.models.openai_completions import LocalCompletionsAPI  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

TOLERANCE_NATS = 1e-4
PAIRS = [
    ("Catherine was at the window, and saw her brother", " come across the garden with a letter in his hand"),
    ("In the beginning God created", " the heaven and the earth."),
    ("It is a truth", " universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife."),
    ("And he said unto them,", " Go"),
]
# Endings by the model's sources, and the same words in another order.
QUESTIONS = [
    ("And the LORD spake unto", " Moses, saying,", " saying Moses,,"),
    ("Elizabeth was not at all", " surprised to hear it.", " it to. hear surprised"),
    ("In the beginning God created the heaven and the", " earth.", " spectacles."),
    ("He came into the", " room.", " of the of."),
    ("And it came to", " pass,", " refrangible."),
    ("Mr. Darcy and Miss", " Bingley", " nation"),
    ("The King of", " Israel", " quickly"),
    ("She was very much", " pleased with him.", " him with. pleased"),
]
TASK = """
task: photonc_endings
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
target_delimiter: ""
doc_to_choice: choices
doc_to_target: answer
metric_list:
  - metric: acc
"""


def score(photonc, bundle, ids):
    asked = [photonc, "score", bundle, "--json", "--ids", ",".join(map(str, ids))]
    return json.loads(subprocess.run(asked, check=True, capture_output=True).stdout)["negative_log_likelihood"]


def main():
    url, name, photonc, bundle = sys.argv[1:5]
    # The tokenizer is the server's own, by /tokenizer_info, /tokenize and /detokenize.
    model = LocalCompletionsAPI(base_url=f"{url}/v1/completions", model=name, tokenizer_backend="remote", num_concurrent=1, max_retries=1, batch_size=4)
    requests = [Instance("loglikelihood", {}, pair, at) for at, pair in enumerate(PAIRS)]
    found = model.loglikelihood(requests, disable_tqdm=True)
    for (context, ending), (likelihood, _) in zip(PAIRS, found, strict=True):
        first, whole = model.tok_encode(context), model.tok_encode(context + ending)
        assert whole[: len(first)] == first, "the ending begins with a token of its own"
        expected = score(photonc, bundle, first) - score(photonc, bundle, whole)
        assert abs(likelihood - expected) < TOLERANCE_NATS, (context, likelihood, expected)

    with tempfile.TemporaryDirectory() as folder:
        data, task = pathlib.Path(folder) / "data.jsonl", pathlib.Path(folder) / "endings.yaml"
        # The right answer is first and second in turn.
        lines = [{"question": question, "choices": [right, wrong][:: 1 - 2 * (at % 2)], "answer": at % 2} for at, (question, right, wrong) in enumerate(QUESTIONS)]
        data.write_text("".join(json.dumps(line) + "\n" for line in lines))
        task.write_text(TASK.format(data=data))
        os.environ["HF_DATASETS_CACHE"] = folder
        manager = TaskManager(include_path=folder, include_defaults=False)
        results = lm_eval.simple_evaluate(model, tasks=["photonc_endings"], task_manager=manager, bootstrap_iters=0)
    accuracy = results["results"]["photonc_endings"]["acc,none"]
    assert accuracy >= 0.75, f"the right ending is the more likely one: {accuracy}"
    print("lm-eval", importlib.metadata.version("lm-eval"), "accuracy", accuracy)


main()
