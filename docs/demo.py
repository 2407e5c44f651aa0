"""The project of the examples and pictures in docs/executor.md and docs/prefect.md: three trainings and what follows.

    python docs/demo.py FOLDER                             makes it, with one commit
    cd FOLDER && python -m flows.reproduce --cpus 4 --gpus 0,1

Stages sleep instead of computing. After a run, `sed -i s/13/15/ params.yaml` changes one of the trainings.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

FILES = {
    "params.yaml": "sizes: {small: 6, medium: 9, large: 13}\n",
    "pyproject.toml": '[tool.flows]\ntable_artifacts = ["*.csv"]\nimage_artifacts = ["*.svg"]\n',
    ".gitignore": "logs/\n",
    "collect.py": """import sys

rows = 3
open(sys.argv[1], "w").write("row\\n" * rows)
""",
    "tabulate.py": """import json
import sys

print("run,score")
for path in sys.argv[1:]:
    print(f"{path.removesuffix('.json').removeprefix('scores-')},{json.load(open(path))['score']}")
""",
    "draw.py": """import csv
import sys

rows = list(csv.DictReader(open(sys.argv[1])))
print('<svg xmlns="http://www.w3.org/2000/svg" width="420" height="150" font-family="sans-serif" font-size="14">')
print('<rect width="420" height="150" fill="white"/>')
for place, row in enumerate(rows):
    y, width = 20 + 40 * place, 20 * int(row["score"])
    print(f'<rect x="90" y="{y}" width="{width}" height="26" fill="#4c78a8"/>')
    print(f'<text x="10" y="{y + 18}">{row["run"]}</text><text x="{96 + width}" y="{y + 18}">{row["score"]}</text>')
print("</svg>")
""",
    "dvc.yaml": """stages:
  collect:
    cmd: python collect.py rows.txt
    deps: [collect.py]
    outs: [rows.txt]
  train:
    foreach: ${sizes}
    do:
      cmd: sleep ${item} && cp rows.txt model-${key}.txt
      deps: [rows.txt]
      params: ["sizes.${key}"]
      outs: ["model-${key}.txt"]
      meta: {flows: {gpus: 1, limit_s: 3600}}
  evaluate:
    foreach: ${sizes}
    do:
      cmd: sleep 2 && echo '{"score":' ${item} '}' > scores-${key}.json
      deps: ["model-${key}.txt"]
      params: ["sizes.${key}"]
      metrics: [{"scores-${key}.json": {cache: false}}]
  tabulate:
    cmd: python tabulate.py scores-small.json scores-medium.json scores-large.json > table.csv
    deps: [tabulate.py, scores-small.json, scores-medium.json, scores-large.json]
    outs: [table.csv]
  draw:
    cmd: python draw.py table.csv > figure.svg
    deps: [draw.py, table.csv]
    outs: [figure.svg]
""",
}


def main() -> None:
    """Make the project."""
    parser = argparse.ArgumentParser(description="A small project for flows to run.", allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True)
    for command in ("git init --quiet", "dvc init --quiet"):
        subprocess.run(command.split(), cwd=folder, check=True)
    for name, content in FILES.items():
        (folder / name).write_text(content, encoding="utf-8")
    who = ["-c", "user.name=demo", "-c", "user.email=demo@example.org"]
    for arguments in (["add", "--all"], [*who, "commit", "--quiet", "--message", "The project"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)


if __name__ == "__main__":
    main()
