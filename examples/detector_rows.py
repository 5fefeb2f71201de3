"""Labelled texts to rows that teach a model to detect: `{text, toxic}` to `{prompt, completion}`.

    python examples/detector_rows.py ../shared/data/toxicity/train.jsonl runs/detector.jsonl

Give them to a run as `data.corpus` with `method.kind = "sft"`; the defaults here are those
of `[[utility]] kind = "detector"`, which measures the tuned model on texts it has not seen.
"""

import argparse
import json
from pathlib import Path

TEMPLATE = "Comment: {text}\nThis comment is"
ANSWERS = (" fine", " toxic")  # of labels 0 and 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("labelled", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--label", default="toxic", help="the label's field, 0 or 1")
    parser.add_argument("--limit", type=int, help="the first so many rows")
    parser.add_argument(
        "--most-bytes", type=int, default=200, help="a longer text is cut to its last so many"
    )
    wanted = parser.parse_args()
    lines = [line for line in wanted.labelled.read_text("utf-8").split("\n") if line.strip()]
    lines = lines[: wanted.limit]
    wanted.rows.parent.mkdir(parents=True, exist_ok=True)
    with wanted.rows.open("w", encoding="utf-8") as file:
        for row in map(json.loads, lines):
            text = row["text"].strip().encode()[-wanted.most_bytes :].decode(errors="ignore")
            prompt = TEMPLATE.replace("{text}", text)
            made = {"prompt": prompt, "completion": ANSWERS[row[wanted.label]]}
            file.write(json.dumps(made, ensure_ascii=False) + "\n")
    print(f"{wanted.rows}: {len(lines)} rows")


if __name__ == "__main__":
    main()
