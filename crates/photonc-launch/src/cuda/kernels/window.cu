// Attention over a window: AttendArguments.
//
// attend_window_{4,8,16}: at most that many keys in all, as many for every row (lengths is null). A group of lanes has one
// (row, key head): all of its keys and values go to registers at once, for every query.
#include "attention.cuh"

// Keys whose scores are summed side by side.
#define WINDOW_STEP 2

template <int KEYS> DEVICE void attend_window(const AttendArguments &a) {
    release_next();
    // Weights that passed through the second-level cache have driven them out.
    if (a.table && threadIdx.x < 32) prefetch(angles_at(a, a.past_base + threadIdx.x / 2) + threadIdx.x % 2 * (DIM / 2));
    // Places and angles need nothing of the previous launch: found before it ends.
    int lane = threadIdx.x % LANES, group = group_of(a);
    // Every lane stays for the shuffles: those past the end repeat the last head and store nothing.
    unsigned unit = (unsigned)(((uint64)blockIdx.x * blockDim.x + threadIdx.x) / LANES), units = (unsigned)a.rows * (unsigned)a.kv_heads;
    bool live = unit < units;
    if (!live) unit = units - 1;
    int row = (int)(unit / (unsigned)a.kv_heads), head = (int)(unit - (unsigned)row * (unsigned)a.kv_heads);
    // The same for every row: whole warps skip keys that nobody has.
    int past = a.past_base, total = min(past + a.keys, KEYS);
    const T *cached_k = once(own_of(a.cache_k, row, 0, head, lane)), *new_k = once(own_of(a.k, row, -past, head, lane));
    const T *cached_v = once(own_of(a.cache_v, row, 0, head, lane)), *new_v = once(own_of(a.v, row, -past, head, lane));
    const T *from_q = once(own_of(a.q, row, 0, head * group, lane));
    Angles next_angles = {}, new_angles = {};
    load(next_angles, a, past + a.first_query, lane);
    load(new_angles, a, past, lane);
    await_previous();
    int visible = visible_of(a, row, total);

    // All of it is on its way before the first use.
    Vector k[KEYS] = {}, v[KEYS] = {};
#pragma unroll
    for (int j = 0; j < KEYS; ++j) {
        if (j < min(past, total)) {
            load(k[j], cached_k + j * a.cache_k.position, lane);
            load(v[j], cached_v + j * a.cache_v.position, lane);
        } else if (j < total) {
            load(k[j], new_k + j * a.k.position, lane);
            load(v[j], new_v + j * a.v.position, lane);
        }
    }
    Vector next;
    load(next, from_q, lane);

    int stored = a.store_at_past ? 0 : -past;
    T *to_k = once(own_of(a.store_k, row, stored, head, lane)), *to_v = once(own_of(a.store_v, row, stored, head, lane));
#pragma unroll
    for (int j = 0; j < KEYS; ++j)
        if (j >= past && j < total) {
            if (j > past) load(new_angles, a, j, lane);
            rotate(k[j], new_angles, a);
            if (a.store_k.base && live) {
                store(to_k + j * a.store_k.position, k[j], lane);
                store(to_v + j * a.store_v.position, v[j], lane);
            }
        }

    T *to = own_of(a.out, row, 0, head * group, lane);
    // Queries in order, each for every member of the group.
    int i = 0, member = 0;
    while (i < a.queries) {
        // Each query decodes the words again: decoded and kept they would take twice the registers.
#pragma unroll
        for (int j = 0; j < KEYS; ++j) {
            renew(k[j]);
            renew(v[j]);
        }
        Floats q = query_of(next, next_angles, a, lane);
        int seen = seen_by(a, past + a.first_query + i, visible);
        T *out_at = to + i * a.out.position + member * a.out.head;
        if (++member == group) {
            member = 0;
            ++i;
        }
        if (i < a.queries) {
            load(next, from_q + i * a.q.position + member * a.q.head, lane);
            load(next_angles, a, past + a.first_query + i, lane);
        }
        float score[KEYS], largest = NO_SCORE, sum = 0.0f;
#pragma unroll
        for (int j = 0; j < KEYS; j += WINDOW_STEP)
            if (j < total)
#pragma unroll
                for (int e = j; e < j + WINDOW_STEP; ++e) {
                    float product = dot(q, floats_of(k[e])) * a.scale;
                    score[e] = e < seen ? product : NO_SCORE;
                    largest = fmaxf(largest, score[e]);
                }
        Floats out = {};
#pragma unroll
        for (int j = 0; j < KEYS; j += WINDOW_STEP)
            if (j < total)
#pragma unroll
                for (int e = j; e < j + WINDOW_STEP; ++e) {
                    float weight = e < seen ? exp_of(score[e] - largest) : 0.0f;
                    sum += weight;
                    add(out, weight, v[e]);
                }
        float share = sum > 0.0f ? 1.0f / sum : 0.0f;
#pragma unroll
        for (int e = 0; e < PER * PAIR; ++e) {
            out.low[e] *= share;
            out.high[e] *= share;
        }
        if (live) store(out_at, vector_of(out), lane);
    }
}

// Blocks that share a multiprocessor with so many keys each.
__device__ constexpr int window_blocks(int keys) {
    return keys * KEY_REGISTERS <= 16 ? 4 : keys * KEY_REGISTERS <= 32 ? 3 : 1;
}
constexpr int BLOCKS_4 = window_blocks(4), BLOCKS_8 = window_blocks(8), BLOCKS_16 = window_blocks(16);

#define WINDOW(name, KEYS, BLOCKS)                                                                                     \
    extern "C" __global__ void __launch_bounds__(ATTEND_THREADS, BLOCKS) name(const __grid_constant__ AttendArguments a) { \
        attend_window<KEYS>(a);                                                                                        \
    }
WINDOW(attend_window_4, 4, BLOCKS_4)
WINDOW(attend_window_8, 8, BLOCKS_8)
// Wider heads would not fit into registers.
#if PHOTONC_HEAD_DIM <= 128
WINDOW(attend_window_16, 16, BLOCKS_16)
#endif
