"""Puts what gpu.sh measured into one JSON file and one table. It needs Python alone."""

import json
import pathlib
import sys

folder = pathlib.Path(sys.argv[1])
result = {"card": (folder / "card.txt").read_text().strip(), "failed": {}, "left_out": [], "runs": []}


def add(what, images_per_second, epoch, accuracy):
    result["runs"].append({"what": what, "images_per_second": images_per_second, "seconds_per_epoch": epoch, "test_accuracy": accuracy})


for path in sorted(folder.glob("*.failed")):
    result["failed"][path.stem] = path.read_text().strip()
result["left_out"] = sorted(p.stem for p in folder.glob("*.skipped"))
for path in sorted(folder.glob("bench-*.json")):
    for row in json.loads(path.read_text()):
        add(f"trainer bench, {row['device']}, {row['kernel']}, batch {row['batch_size']}", row["images_per_second"], None, None)
for path in sorted(folder.glob("train-*.json")):
    r = json.loads(path.read_text())
    epochs = r["epochs"]
    if epochs:  # a training that came to its limit may have none
        add(f"trainer train, {r['device']['name']}, {r['device']['kernel']}, {len(epochs)} epochs", r["images_per_second"],
            sum(e["seconds"] for e in epochs) / len(epochs), epochs[-1]["test_accuracy"])
for path in sorted(folder.glob("pytorch-*.json")):
    r = json.loads(path.read_text())
    add(f"PyTorch {r['torch']}, {r['variant']}, {r['epochs']} epochs", r["images_per_second"], r["seconds_per_epoch"], r["test_accuracy"])
(folder / "gpu.json").write_text(json.dumps(result, indent=2) + "\n")

lines = [result["card"], "", "| what | images/s | s/epoch | test accuracy |", "|---|---|---|---|"]
for r in result["runs"]:
    cells = [r["images_per_second"], r["seconds_per_epoch"], r["test_accuracy"]]
    forms = ["{:.0f}", "{:.3f}", "{:.4f}"]
    lines.append("| " + " | ".join([r["what"]] + ["" if c is None else f.format(c) for c, f in zip(cells, forms)]) + " |")
if result["failed"]:
    lines += ["", "Failed:", ""] + [f"- {name}: {why}" for name, why in result["failed"].items()]
if result["left_out"]:
    lines += ["", "Left out: " + ", ".join(result["left_out"]) + "."]
(folder / "gpu.md").write_text("\n".join(lines) + "\n")
