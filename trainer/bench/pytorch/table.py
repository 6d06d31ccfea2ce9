"""Puts what gpu.sh measured into one JSON file and one table. It needs Python alone."""

import json
import pathlib
import sys

folder = pathlib.Path(sys.argv[1])
result = {"card": (folder / "card.txt").read_text().strip(), "failed": [], "runs": []}


def add(what, images_per_second, epoch, accuracy):
    result["runs"].append({"what": what, "images_per_second": images_per_second, "seconds_per_epoch": epoch, "test_accuracy": accuracy})


for name in sorted(p.name for p in folder.glob("*.failed")):
    result["failed"].append(name.removesuffix(".failed"))
for path in sorted(folder.glob("bench-*.json")):
    for row in json.loads(path.read_text()):
        add(f"trainer bench, {row['device']}, {row['kernel']}, batch {row['batch_size']}", row["images_per_second"], None, None)
for path in sorted(folder.glob("train-*.json")):
    r = json.loads(path.read_text())
    last = r["epochs"][-1]
    add(f"trainer train, {r['device']['name']}, {r['device']['kernel']}, {len(r['epochs'])} epochs", r["images_per_second"],
        sum(e["seconds"] for e in r["epochs"]) / len(r["epochs"]), last["test_accuracy"])
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
    lines += ["", "Failed or not there: " + ", ".join(result["failed"]) + ". See the .log files."]
(folder / "gpu.md").write_text("\n".join(lines) + "\n")
