"""Sums up what Nsight Compute measured: kernels by name and grid, with their number, time and bytes.

    ncu --csv --page raw --metrics gpu__time_duration.sum,dram__bytes_read.sum,dram__bytes_write.sum PROGRAM >FILE
    python3 tests/gpu/ncu_table.py FILE"""

import csv
import re
import sys

SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "nsecond": 1e-9, "usecond": 1e-6, "msecond": 1e-3, "second": 1.0}
BYTES = {"byte": 1, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9}


def number(text):
    return float(text.replace(",", "") or 0)


def main():
    with open(sys.argv[1], errors="replace") as file:
        lines = [line for line in file if line.startswith('"')]
    rows = list(csv.reader(lines))
    names, units, found = rows[0], rows[1], {}
    at = {name: index for index, name in enumerate(names)}

    def scaled(row, metric, scales):
        return number(row[at[metric]]) * scales.get(units[at[metric]], 1.0)

    for row in rows[2:]:
        if len(row) != len(names):
            continue
        key = (re.sub(r"\(.*", "", row[at["Kernel Name"]])[:60], row[at["Grid Size"]].replace(" ", ""))
        known = found.setdefault(key, [0, 0.0, 0.0])
        known[0] += 1
        known[1] += scaled(row, "gpu__time_duration.sum", SECONDS)
        known[2] += scaled(row, "dram__bytes_read.sum", BYTES) + scaled(row, "dram__bytes_write.sum", BYTES)
    total = sum(seconds for _, seconds, _ in found.values())
    print(f"{'kernel':60} {'grid':>16} {'times':>6} {'us each':>9} {'GB/s':>6} {'of time':>7}")
    for (name, grid), (count, seconds, moved) in sorted(found.items(), key=lambda item: -item[1][1])[:40]:
        rate = moved / seconds / 1e9 if seconds else 0
        print(f"{name:60} {grid:>16} {count:6} {seconds / count * 1e6:9.2f} {rate:6.0f} {seconds / total:7.1%}")


if __name__ == "__main__":
    main()
