"""python nb.py text.md out.ipynb PREFIX — cells split by lines '=== md' / '=== code'; code options '#| key: value' first."""
import json, sys
src, out, prefix = sys.argv[1:4]
cells, cur = [], None
for line in open(src, encoding="utf-8"):
    if line.startswith("=== "):
        cur = [line[4:].strip(), []]; cells.append(cur)
    else:
        cur[1].append(line)
nb = {"cells": [], "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}, "language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}
for k, (kind, lines) in enumerate(cells):
    opts = {}
    while lines and lines[0].startswith("#| "):
        key, value = lines.pop(0)[3:].strip().split(": ", 1); opts[key] = value
    text = "".join(lines).strip("\n")
    source = text.splitlines(keepends=True)
    meta = {}
    if "caption" in opts:
        meta["mystnb"] = {"figure": {"caption": opts["caption"], "name": opts["name"]}, "image": {"alt": opts["alt"]}}
    if "tags" in opts:
        meta["tags"] = opts["tags"].split()
    cell = {"cell_type": "markdown" if kind == "md" else "code", "id": f"{prefix}-{k:02}", "metadata": meta, "source": source}
    if kind != "md":
        cell |= {"execution_count": None, "outputs": []}
    nb["cells"].append(cell)
json.dump(nb, open(out, "w", encoding="utf-8"), ensure_ascii=False, indent=1); open(out, "a").write("\n")
