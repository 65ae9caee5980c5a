"""Medians, ratios, and the table for people and for docs/performance.md."""
import os
import statistics

from sections import ROWS

BEGIN, END = "<!-- compare:begin -->", "<!-- compare:end -->"


def number(x):
    if x is None:
        return "–"
    if abs(x) >= 100:
        return f"{x:,.0f}"
    return f"{x:.3g}"


def judge(row, ours, stock):
    """Ratio, and whether the aim was reached: True, False, or None without one."""
    ratio = None
    if ours is not None and stock is not None and ours > 0 and stock > 0:
        ratio = ours / stock if row.higher else stock / ours
    if row.limit is not None and ours is not None:
        return ratio, ours <= row.limit
    if row.aim is not None and ratio is not None:
        return ratio, ratio >= row.aim
    return ratio, None


def table(values):
    """Rows as dictionaries; `values` is {side: {row key: [value of each round]}}."""
    out = []
    for row in ROWS:
        ours, stock = (values.get(side, {}).get(row.key, []) for side in ("troupe", "stock"))
        if not ours and not stock:
            continue
        mid = [statistics.median(x) if x else None for x in (ours, stock)]
        ratio, reached = judge(row, *mid)
        aim = ""
        if row.aim is not None:
            aim = f"{row.aim:g} ×" if row.higher else f"1/{row.aim:g}"
        if row.limit is not None:
            aim = f"{row.limit:g} {row.unit}"
        out.append({"key": row.key, "title": row.title, "unit": row.unit, "higher_is_better": row.higher,
                    "troupe": mid[0], "stock": mid[1], "rounds": {"troupe": ours, "stock": stock},
                    "ratio": ratio, "aim": aim, "reached": reached})
    return out


def cells(line):
    """A line of the table; the ratio is ours to stock's, below 1 as a fraction."""
    reached = {True: "yes", False: "**no**", None: ""}[line["reached"]]
    ratio = line["ratio"]
    if ratio is None:
        text = "–"
    elif line["higher_is_better"]:
        text = f"{ratio:.2f} ×"
    else:
        text = f"1/{ratio:.2f}" if ratio >= 1 else f"{1 / ratio:.2f} ×"
    return [line["title"], line["unit"], number(line["troupe"]), number(line["stock"]), text, line["aim"], reached]


HEAD = ["figure", "unit", "TroupeMQ", "RocketMQ", "ratio", "aim", "reached"]


def text(lines):
    rows = [HEAD] + [cells(line) for line in lines]
    width = [max(len(r[i]) for r in rows) for i in range(len(HEAD))]
    return "\n".join("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, width)))
                     for r in rows)


def markdown(lines, meta):
    c = meta["conditions"]
    out = [BEGIN, "",
           f"Measured {c['date']} with `benches/compare`{' --quick' if meta['quick'] else ''}: {c['cores']} cores "
           f"({c['cpu']}), {c['memory_mb']:,} MB, {c['kernel']}; fdatasync of 4 KiB {c['fdatasync_4k_ms']['p50']} ms "
           f"(p99 {c['fdatasync_4k_ms']['p99']} ms); load {c['load_1m']:.2f} before the start. Medians of "
           f"up to {meta['rounds']} alternating rounds; generator and broker share the machine. A ratio is TroupeMQ's "
           "figure to RocketMQ's.", ""]
    for side, title in (("troupe", "TroupeMQ"), ("stock", "Stock")):
        settings = ", ".join(f"`{k}` {v}" for k, v in meta["settings"][side].items())
        out.append(f"- {title}: {meta['versions'][side]}. Not default: {settings}.")
    out += ["", "| " + " | ".join(HEAD) + " |", "|---|---|---:|---:|---:|---:|---|"]
    out += ["| " + " | ".join(cells(line)) + " |" for line in lines]
    if meta["failures"]:
        out += ["", "Not measured: " + "; ".join(meta["failures"]) + "."]
    return "\n".join([*out, "", END]) + "\n"


def write_markdown(path, block):
    """Replaces the block between the marks; a file without marks gets it at its end."""
    old = ""
    if os.path.exists(path):
        with open(path) as f:
            old = f.read()
    if BEGIN in old and END in old:
        head, rest = old.split(BEGIN, 1)
        new = head + block.rstrip("\n") + rest.split(END, 1)[1]
    else:
        new = old + ("\n" if old else "") + block
    with open(path, "w") as f:
        f.write(new)
