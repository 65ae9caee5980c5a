"""Medians, ratios, and the tables for people and for docs/performance.md."""
import os
import statistics


class Table:
    """Rows of figures of one side, ours, next to others: `sides` are those, name and heading, ours first."""

    def __init__(self, mark, rows, sides, note=""):
        self.begin, self.end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
        self.rows, self.sides, self.note = rows, sides, note

    def names(self):
        return [name for name, _ in self.sides]

    def lines(self, values):
        """Rows as dictionaries; `values` is {side: {row key: [value of each round]}}."""
        out = []
        for row in self.rows:
            rounds = {side: values.get(side, {}).get(row.key, []) for side in self.names()}
            if not any(rounds.values()):
                continue
            medians = {side: statistics.median(x) if x else None for side, x in rounds.items()}
            ours = medians[self.names()[0]]
            against = {side: judge(row, ours, medians[side], row.aims.get(side)) for side in self.names()[1:]}
            limit = None if row.limit is None else f"{row.limit:g} {row.unit}".strip()
            out.append({"key": row.key, "title": row.title, "unit": row.unit, "higher_is_better": row.higher,
                        "medians": medians, "rounds": rounds, "against": against, "limit": limit,
                        "within": None if limit is None or ours is None else ours <= row.limit})
        return out

    def head(self):
        return ["figure", "unit", *(title for _, title in self.sides), *(["ratio", "aim", "reached"] if len(self.sides) == 2
                else [f"to {title}" for _, title in self.sides[1:]] + ["aim", "reached"])]

    def cells(self, line):
        """A line of the table; a ratio is ours to the other's, below 1 as a fraction."""
        against = line["against"].values()
        aims = [a["aim"] or "–" for a in against] if any(a["aim"] for a in against) else []
        aim = line["limit"] if line["limit"] is not None else ", ".join(aims)
        reached = [line["within"]] if line["limit"] is not None else [a["reached"] for a in against if a["aim"]]
        return [line["title"], line["unit"], *(number(line["medians"][side]) for side in self.names()),
                *(fraction(a["ratio"], line["higher_is_better"]) for a in against), aim,
                ", ".join({True: "yes", False: "**no**", None: "not measured"}[r] for r in reached)]

    def text(self, lines):
        rows = [self.head()] + [self.cells(line) for line in lines]
        width = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
        return "\n".join("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, width)))
                         for r in rows)

    def markdown(self, lines, meta):
        c = meta["conditions"]
        out = [self.begin, "",
               f"Measured {c['date']} with `benches/compare`{' --quick' if meta['quick'] else ''}: {c['cores']} cores "
               f"({c['cpu']}), {c['memory_mb']:,} MB, {c['kernel']}; fdatasync of 4 KiB {c['fdatasync_4k_ms']['p50']} ms "
               f"(p99 {c['fdatasync_4k_ms']['p99']} ms); load {c['load_1m']:.2f} before the start. Medians of "
               f"up to {meta['rounds']} alternating rounds; generator and brokers share the machine. A ratio is TroupeMQ's "
               f"figure to RocketMQ's.{self.note}", ""]
        for side in self.names():
            settings = ", ".join(f"`{k}` {v}" for k, v in meta["settings"][side].items())
            out.append(f"- {meta['titles'][side]}: {meta['versions'][side]}. Not default: {settings}.")
        head = self.head()
        out += ["", "| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 3) + "---|"]
        out += ["| " + " | ".join(self.cells(line)) + " |" for line in lines]
        if meta["failures"]:
            out += ["", "Not measured: " + "; ".join(meta["failures"]) + "."]
        return "\n".join([*out, "", self.end]) + "\n"

    def write_markdown(self, path, block):
        """Replaces the block between the marks; a file without marks gets it at its end."""
        old = ""
        if os.path.exists(path):
            with open(path) as f:
                old = f.read()
        if self.begin in old and self.end in old:
            head, rest = old.split(self.begin, 1)
            new = head + block.rstrip("\n") + rest.split(self.end, 1)[1]
        else:
            new = old + ("\n" if old else "") + block
        with open(path, "w") as f:
            f.write(new)


def number(x):
    if x is None:
        return "–"
    if abs(x) >= 100:
        return f"{x:,.0f}"
    return f"{x:.3g}"


def fraction(ratio, higher):
    if ratio is None:
        return "–"
    if higher:
        return f"{ratio:.2f} ×"
    return f"1/{ratio:.2f}" if ratio >= 1 else f"{1 / ratio:.2f} ×"


def judge(row, ours, other, aim):
    """How many times better ours is, the aim in words, and whether it was reached (None: cannot be said)."""
    ratio = None
    if ours is not None and other is not None and ours > 0 and other > 0:
        ratio = ours / other if row.higher else other / ours
    words = ""
    if aim is not None:
        words = f"{aim:g} ×" if row.higher else f"1/{aim:g}"
    return {"ratio": ratio, "aim": words, "reached": None if aim is None or ratio is None else ratio >= aim}
