"""Text behind a prompt, whole and as it comes. Usage: generate.py BUNDLE [BACKEND]"""

import sys

import photonc

backend = sys.argv[2] if len(sys.argv) > 2 else "auto"
with photonc.load(sys.argv[1], backend) as model:
    params = photonc.SamplingParams(temperature=0.8, top_k=40, max_tokens=40, seed=1, logprobs=1)
    for output in model.generate(["The old man", "In the beginning"], params, n=2):
        for sequence in output.outputs:
            print(f"{output.prompt}{sequence.text} [{sequence.finish_reason}, {sequence.cumulative_logprob:.1f}]")
    for burst in model.stream("And he said", params):
        print(burst.text, end="", flush=True)
    print()
