"""What must be durable before it can be seen: every file that a run writes is synced before the rename that puts it in
its place, and the folder after that. A power failure then finds the old contents or the new ones."""

WRITES = ("write", "pwrite64", "writev", "pwritev", "pwritev2", "ftruncate", "copy_file_range", "sendfile", "fallocate")
SYNCS = ("fsync", "fdatasync")
RENAMES = ("rename", "renameat", "renameat2")


def disorder(case, calls, out):
    """What of a run's output is not durable when it is seen, or at the end."""
    dirty, moved, is_folder = {}, None, (out / case.target).is_dir()
    calls = [(call, call.place(out)) for call in calls]
    for call, place in calls:
        if not place or " = -1 " in call.text:
            continue
        # In `copy_file_range` and `rename` the last one is written to.
        last = place.split(" -> ")[-1]
        if call.name in WRITES or (call.name in ("open", "openat") and call.creates):
            dirty[last] = call.name
        elif call.name in SYNCS:
            dirty.pop(last, None)
            moved = None if moved and last == moved else moved
        elif call.name in RENAMES and case.how == "whole" and last == case.target:
            yield from (f"{name} is not synced before {call.name} to {last}" for name in sorted(dirty))
            dirty.clear()
            moved = last.rpartition("/")[0] or "."
    if case.how in ("lines", "over"):
        yield from (f"{name} is not synced at the end" for name in sorted(dirty))
    if moved and is_folder:
        yield f"the folder {moved} is not synced after the rename"
