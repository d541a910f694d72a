"""Messages of protobuf as they go over the wire, without their schema: enough to change a field somewhere inside."""

WIRE_NUMBER, WIRE_64, WIRE_BYTES, WIRE_32 = 0, 1, 2, 5


def _number(data, at):
    value, shift = 0, 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _spelled(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def parse(data):
    """Fields as (tag, value): numbers as they are, everything else as bytes; `None` where it is no message."""
    fields, at = [], 0
    try:
        while at < len(data):
            tag, at = _number(data, at)
            wire = tag & 7
            if tag >> 3 == 0:
                return None
            if wire == WIRE_NUMBER:
                value, at = _number(data, at)
            elif wire == WIRE_BYTES:
                length, at = _number(data, at)
                value, at = bytes(data[at : at + length]), at + length
            elif wire in (WIRE_32, WIRE_64):
                length = 4 if wire == WIRE_32 else 8
                value, at = bytes(data[at : at + length]), at + length
            else:
                return None
            if at > len(data):
                return None
            fields.append((tag, value))
    except (IndexError, ValueError):
        return None
    return fields


def spell(fields):
    out = bytearray()
    for tag, value in fields:
        out += _spelled(tag)
        if tag & 7 == WIRE_NUMBER:
            out += _spelled(value)
        elif tag & 7 == WIRE_BYTES:
            out += _spelled(len(value)) + value
        else:
            out += value
    return bytes(out)


def changed(rng, data, depth=0):
    """The message with one field somewhere in it changed, lost, repeated or moved."""
    fields = parse(data)
    if not fields:
        return data + rng.randbytes(3)
    at = rng.randrange(len(fields))
    tag, value = fields[at]
    roll = rng.random()
    if isinstance(value, bytes) and tag & 7 == WIRE_BYTES and roll < 0.75 and depth < 8 and len(value) > 1:
        printable = all(32 <= byte < 127 for byte in value)
        if not printable and parse(value):
            fields[at] = (tag, changed(rng, value, depth + 1))
            return spell(fields)
    if roll < 0.15:
        del fields[at]
    elif roll < 0.3:
        fields.insert(rng.randrange(len(fields) + 1), fields[at])
    elif roll < 0.45:
        other = rng.randrange(len(fields))
        fields[at], fields[other] = fields[other], fields[at]
    elif isinstance(value, int):
        fields[at] = (tag, rng.choice([0, 1, 7, 2**31, 2**63, 2**64 - 1, value + 1]))
    else:
        fields[at] = (
            tag,
            rng.choice(
                [
                    b"",
                    b"x",
                    b"\x1b[2J",
                    value + b"x",
                    value[:-1],
                    b"../../x",
                    b"/dev/zero",
                    b"\xff" * len(value),
                    value * 2,
                ]
            ),
        )
    return spell(fields)
