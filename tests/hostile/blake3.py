"""BLAKE3 of bytes, every chunk of a file beside the others in numpy: bundles that were changed get the hashes that
make the checks behind them be reached."""

import numpy as np

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
CHUNK_BYTES, BLOCK_BYTES = 1024, 64


def _mix(state, a, b, c, d, x, y):
    def turned(value, bits):
        return (value >> np.uint32(bits)) | (value << np.uint32(32 - bits))

    state[a] = state[a] + state[b] + x
    state[d] = turned(state[d] ^ state[a], 16)
    state[c] = state[c] + state[d]
    state[b] = turned(state[b] ^ state[c], 12)
    state[a] = state[a] + state[b] + y
    state[d] = turned(state[d] ^ state[a], 8)
    state[c] = state[c] + state[d]
    state[b] = turned(state[b] ^ state[c], 7)


def _compress(chain, words, counters, lengths, flags):
    """One block of every lane: `chain` [8, lanes], `words` [16, lanes], the rest [lanes]."""
    lanes = chain.shape[1]
    state = list(chain) + [np.full(lanes, word, np.uint32) for word in IV[:4]]
    state += [counters.astype(np.uint32), np.zeros(lanes, np.uint32), lengths, flags]
    order = list(range(16))
    for _ in range(7):
        m = [words[at] for at in order]
        for at in range(4):
            _mix(state, at, 4 + at, 8 + at, 12 + at, m[2 * at], m[2 * at + 1])
        for at in range(4):
            _mix(state, at, 4 + (at + 1) % 4, 8 + (at + 2) % 4, 12 + (at + 3) % 4, m[8 + 2 * at], m[9 + 2 * at])
        order = [order[at] for at in PERMUTATION]
    return np.stack([state[at] ^ state[at + 8] for at in range(8)])


def blake3(data: bytes) -> str:
    """The hash as 64 hexadecimal digits."""
    chunks = max(1, -(-len(data) // CHUNK_BYTES))
    padded = np.frombuffer(data.ljust(chunks * CHUNK_BYTES, b"\0"), "<u4").reshape(chunks, 16, 16)
    chain = np.repeat(np.array(IV, np.uint32)[:, None], chunks, 1)
    counters = np.arange(chunks)
    sizes = np.full(chunks, CHUNK_BYTES)
    sizes[-1] = len(data) - (chunks - 1) * CHUNK_BYTES
    blocks = np.maximum(1, -(-sizes // BLOCK_BYTES))
    root = ROOT if chunks == 1 else 0
    for at in range(16):
        live = np.flatnonzero(blocks > at)
        if not live.size:
            break
        last = blocks[live] == at + 1
        flags = np.where(at == 0, CHUNK_START, 0) | np.where(last, CHUNK_END | root, 0)
        lengths = np.clip(sizes[live] - at * BLOCK_BYTES, 0, BLOCK_BYTES)
        words = padded[live, at].T
        chain[:, live] = _compress(
            chain[:, live], words, counters[live], lengths.astype(np.uint32), flags.astype(np.uint32)
        )
    # Neighbours are joined level by level; one without a neighbour goes up as it is: that is the tree of BLAKE3.
    while chain.shape[1] > 1:
        pairs = chain.shape[1] // 2
        words = np.concatenate([chain[:, 0 : 2 * pairs : 2], chain[:, 1 : 2 * pairs : 2]])
        flags = PARENT | (ROOT if chain.shape[1] == 2 else 0)
        start = np.repeat(np.array(IV, np.uint32)[:, None], pairs, 1)
        full = np.full(pairs, BLOCK_BYTES, np.uint32)
        joined = _compress(start, words, np.zeros(pairs), full, np.full(pairs, flags, np.uint32))
        chain = np.concatenate([joined, chain[:, 2 * pairs :]], 1)
    return chain[:, 0].astype("<u4").tobytes().hex()
