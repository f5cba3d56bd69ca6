"""The lm_eval command, and GSM8K from files for hosts without internet."""

from __future__ import annotations

TASK, LOCAL_TASK = "gsm8k", "gsm8k_local"
FEWSHOT, CONCURRENT, TIMEOUT = 5, 32, 3000
REQUIREMENTS = ("lm-eval[api]==0.4.13",)

# lm_eval's own gsm8k (version 3.0) that reads its data from files: questions and answers as published, JSON lines.
_LOCAL = """\
task: gsm8k_local
dataset_path: json
dataset_kwargs:
  data_files:
    train: "{path}/train.jsonl"
    test: "{path}/test.jsonl"
output_type: generate_until
training_split: train
fewshot_split: train
test_split: test
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{answer}}}}"
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
    ignore_punctuation: false
    regexes_to_ignore: [",", "\\\\$", "(?s).*#### ", "\\\\.$"]
generation_kwargs:
  until: ["Question:", "</s>", "<|im_end|>"]
  do_sample: false
  temperature: 0.0
repeats: 1
num_fewshot: 5
filter_list:
  - name: "strict-match"
    filter:
      - function: "regex"
        regex_pattern: "#### (\\\\-?[0-9\\\\.\\\\,]+)"
      - function: "take_first"
  - name: "flexible-extract"
    filter:
      - function: "regex"
        group_select: -1
        regex_pattern: "(-?[$0-9.,]{{2,}})|(-?[0-9]+)"
      - function: "take_first"
metadata:
  version: 3.0
"""


def local_task(path: str) -> str:
    """Return the task file (YAML) that reads GSM8K from `path`/train.jsonl and `path`/test.jsonl."""
    return _LOCAL.format(path=path)


def argv(
    *,
    program: str,
    base_url: str,
    served_model_name: str,
    output: str,
    limit: int | None = None,
    tasks_dir: str | None = None,
    fewshot: int = FEWSHOT,
) -> list[str]:
    """Return the lm_eval command that the recipes' published scores were made with.

    Args:
        program: path of lm_eval on the host.
        base_url: of the endpoint, as reached from the host.
        served_model_name: name in the API.
        output: directory for the results.
        limit: questions to ask; None asks all 1319.
        tasks_dir: directory of `local_task`'s file; None reads GSM8K from the hub.
        fewshot: examples before each question.
    """
    model = {
        "model": served_model_name,
        "base_url": f"{base_url}/v1/completions",
        "num_concurrent": CONCURRENT,
        "tokenized_requests": False,
        "tokenizer_backend": None,
        "timeout": TIMEOUT,
    }
    words = [program, "--model", "local-completions", "--tasks", LOCAL_TASK if tasks_dir else TASK]
    words += ["--num_fewshot", str(fewshot), "--model_args", ",".join(f"{k}={v}" for k, v in model.items())]
    words += ["--output_path", output]
    if tasks_dir:
        words += ["--include_path", tasks_dir]
    if limit is not None:
        words += ["--limit", str(limit)]
    return words
