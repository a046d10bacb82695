"""Tasks for lm-evaluation-harness over rows that ship: one whose answers are scored, one whose answers are written."""

from pathlib import Path

import yaml

from hydralora.data.demo import shipped_folder


def write_tasks(folder: Path) -> Path:
    """Their definitions, and that of a task whose rows can't be fetched."""
    folder.mkdir()
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(shipped_folder("sets") / "single.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{instruction}} {{input}}",
        "doc_to_target": "{{output}}",
    }
    # Of one letter: lm_eval can't print the huge perplexity of a long answer.
    scored = {"doc_to_target": "{{output[:1]}}"} | {
        "task": "scored",
        "output_type": "loglikelihood",
        "metric_list": [{"metric": "perplexity"}],
    }
    written = {
        "task": "written",
        "output_type": "generate_until",
        "generation_kwargs": {"max_gen_toks": 4, "until": ["\n"]},
        "metric_list": [{"metric": "exact_match"}],
    }
    absent = {"task": "absent_rows", "output_type": "loglikelihood", "dataset_path": "nobody/has-this"}
    for task in (scored, written, absent):
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump(shared | task), encoding="utf-8")
    return folder
