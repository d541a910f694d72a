// Attention with rotary positions for heads of PHOTONC_HEAD_DIM elements: AttendArguments.
//
// attend_window_{4,8,16}: at most that many keys in all, as many for every row (lengths is null). A group of lanes has one
// (row, key head): all of its keys and values go to registers at once, for every query.
// attend_cache_{1,4}: any past. A block has one (row, key head); its groups of lanes take every so-many-th key for 1 or 4
// queries at a time and join their partial softmaxes at the end.
// attend_stream: many queries over keys that append_keys has put into the cache (`keys` is 0, the cache holds `past` keys
// with those of the queries, first_query is negative). Tensor cores, 64 queries of a head a block; for f32 the cache's way,
// one query a block.
// append_keys: rotates the new keys and copies the new values into store.
//
// Rotated queries and keys are rounded to T, as they are in the cache; scores and sums are f32. A query that sees no key
// yields zeros.
#include "device.cuh"

#ifndef PHOTONC_HEAD_DIM
#error "PHOTONC_HEAD_DIM is the width of a head"
#endif

constexpr int DIM = PHOTONC_HEAD_DIM;
constexpr int HALF = DIM / 2;
static_assert(DIM % 2 == 0 && DIM >= 2 && DIM <= 256, "heads have an even width up to 256");

// Neighbouring elements that a lane moves at once.
constexpr int PAIR = HALF % 2 == 0 ? 2 : 1;

__device__ constexpr int lanes_for(int words) {
    int lanes = 1;
    while (lanes < words && lanes < 32) lanes *= 2;
    return lanes;
}
// Lanes that share a head, and words of each half that each has.
constexpr int LANES = lanes_for(HALF / PAIR);
constexpr int PER = (HALF / PAIR + LANES - 1) / LANES;

#define ATTEND_THREADS 256
#define NO_SCORE (-1e30f)

// Neighbours as they lie in memory: decoded where they are used, so that many can be on their way at once.
template <int BYTES> struct Unit {
    typedef unsigned Bits;
};
template <> struct Unit<2> {
    typedef unsigned short Bits;
};
constexpr int WORD_BYTES = PAIR * (int)sizeof(T);
struct alignas(WORD_BYTES) Word {
    Unit<WORD_BYTES>::Bits bits[(WORD_BYTES + 3) / 4];
};

template <class E> DEVICE float element_of(const Word &word, int e) {
    if constexpr (sizeof(E) == 4)
        return float_of(word.bits[e]);
    else
        return e == 0 ? low_of<E>(word.bits[0]) : high_of<E>(word.bits[0]);
}
template <class E> DEVICE Word word_of(const float *from) {
    Word word;
    if constexpr (sizeof(E) == 4) {
#pragma unroll
        for (int e = 0; e < PAIR; ++e) word.bits[e] = bits_of(from[e]);
    } else if constexpr (PAIR == 2) {
        word.bits[0] = pack<E>(from[0], from[1]);
    } else {
        word.bits[0] = from_float<E>(from[0]).bits;
    }
    return word;
}

// A head's vector, spread over LANES lanes: words lane, lane + LANES, .. of either half. Elements t and t + HALF, which
// turn together, are in one lane. A lane past the last word has that word again, and stores nothing.
struct Vector {
    Word low[PER];
    Word high[PER];
};
struct Floats {
    float low[PER * PAIR];
    float high[PER * PAIR];
};
// Cosine and sine of neighbours, as they lie in the table.
struct alignas(8 * PAIR) Turn {
    float cosine_sine[2 * PAIR];
};
struct Angles {
    Turn turn[PER];
};

DEVICE bool has_word(int lane, int i) { return lane + i * LANES < HALF / PAIR; }
// A lane's word of a half.
DEVICE int word_at_lane(int lane, int i) { return has_word(lane, i) ? lane + i * LANES : HALF / PAIR - 1; }
// Elements from a lane's first word to its others.
DEVICE int ahead_of_first(int lane, int i) { return (word_at_lane(lane, i) - word_at_lane(lane, 0)) * PAIR; }
// A lane's first word of a head: what load and store start at.
DEVICE T *own_of(const Heads &heads, int row, int position, int head, int lane) {
    return head_of(heads, row, position, head) + word_at_lane(lane, 0) * PAIR;
}

DEVICE void load(Vector &vector, const T *from, int lane) {
#pragma unroll
    for (int i = 0; i < PER; ++i) {
        vector.low[i] = *(const Word *)(from + ahead_of_first(lane, i));
        vector.high[i] = *(const Word *)(from + HALF + ahead_of_first(lane, i));
    }
}
DEVICE void store(T *to, const Vector &vector, int lane) {
#pragma unroll
    for (int i = 0; i < PER; ++i)
        if (has_word(lane, i)) {
            *(Word *)(to + i * LANES * PAIR) = vector.low[i];
            *(Word *)(to + HALF + i * LANES * PAIR) = vector.high[i];
        }
}
DEVICE Floats floats_of(const Vector &vector) {
    Floats floats;
#pragma unroll
    for (int i = 0; i < PER * PAIR; ++i) {
        floats.low[i] = element_of<T>(vector.low[i / PAIR], i % PAIR);
        floats.high[i] = element_of<T>(vector.high[i / PAIR], i % PAIR);
    }
    return floats;
}
DEVICE Vector vector_of(const Floats &floats) {
    Vector vector;
#pragma unroll
    for (int i = 0; i < PER; ++i) {
        vector.low[i] = word_of<T>(floats.low + i * PAIR);
        vector.high[i] = word_of<T>(floats.high + i * PAIR);
    }
    return vector;
}

// From here on the words count as new ones.
DEVICE void renew(Vector &vector) {
#pragma unroll
    for (int i = 0; i < PER; ++i)
#pragma unroll
        for (int w = 0; w < (WORD_BYTES + 3) / 4; ++w) {
            renewed(vector.low[i].bits[w]);
            renewed(vector.high[i].bits[w]);
        }
}

DEVICE const float *angles_at(const AttendArguments &a, int position) {
    int known = max(0, min(position, a.table_positions - 1));
    return a.table + (int64)known * DIM;
}
DEVICE void load(Angles &angles, const AttendArguments &a, int position, int lane) {
    if (!a.table) return;
    const float *table = angles_at(a, position);
#pragma unroll
    for (int i = 0; i < PER; ++i) angles.turn[i] = *(const Turn *)(table + 2 * PAIR * word_at_lane(lane, i));
}

// Turns a vector by the angles of its position.
DEVICE void rotate(Vector &vector, const Angles &angles, const AttendArguments &a) {
    if (!a.table) return;
    Floats x = floats_of(vector), y;
#pragma unroll
    for (int i = 0; i < PER * PAIR; ++i) {
        const float *turn = angles.turn[i / PAIR].cosine_sine + 2 * (i % PAIR);
        y.low[i] = x.low[i] * turn[0] - x.high[i] * turn[1];
        y.high[i] = x.high[i] * turn[0] + x.low[i] * turn[1];
    }
    vector = vector_of(y);
}
DEVICE void rotate(Vector &vector, const AttendArguments &a, int position, int lane) {
    Angles angles = {};
    load(angles, a, position, lane);
    rotate(vector, angles, a);
}
// A turned query; zeros in lanes without a word, so that these add nothing to scores.
DEVICE Floats query_of(Vector &raw, const Angles &angles, const AttendArguments &a, int lane) {
    rotate(raw, angles, a);
    Floats query = floats_of(raw);
#pragma unroll
    for (int i = 0; i < PER * PAIR; ++i)
        if (!has_word(lane, i / PAIR)) query.low[i] = query.high[i] = 0.0f;
    return query;
}

DEVICE float dot(const Floats &x, const Floats &y) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < PER * PAIR; ++i) {
        sum += x.low[i] * y.low[i];
        sum += x.high[i] * y.high[i];
    }
    return lanes_sum<LANES>(sum);
}

DEVICE void add(Floats &sum, float weight, const Vector &vector) {
    Floats value = floats_of(vector);
#pragma unroll
    for (int e = 0; e < PER * PAIR; ++e) {
        sum.low[e] += weight * value.low[e];
        sum.high[e] += weight * value.high[e];
    }
}

// Query heads that read one key head.
DEVICE int group_of(const AttendArguments &a) { return a.heads == a.kv_heads ? 1 : a.heads / a.kv_heads; }
DEVICE int past_of(const AttendArguments &a, int row) {
    int64 length = a.lengths ? a.lengths[row / a.rows_per_length] * a.past_scale : 0;
    return (int)(length + a.past_base);
}
// Keys from here on are not seen by any query of the row.
DEVICE int visible_of(const AttendArguments &a, int row, int keys) {
    if (!a.visible) return keys;
    int64 visible = a.visible[row] * a.visible_scale;
    return visible < keys ? (int)visible : keys;
}
// Keys that the query at `position` sees: those before the result.
DEVICE int seen_by(const AttendArguments &a, int position, int visible) {
    return a.causal ? min(visible, position + 1) : visible;
}

// ---- append_keys ----

// Rotates a new key and copies it and its value into store.
DEVICE void store_new_key(const AttendArguments &a, int row, int j, int head, int past, int lane) {
    int at = j + (a.store_at_past ? past : 0);
    Vector k, v;
    Angles angles = {};
    load(k, own_of(a.k, row, j, head, lane), lane);
    load(v, own_of(a.v, row, j, head, lane), lane);
    load(angles, a, past + j, lane);
    rotate(k, angles, a);
    store(own_of(a.store_k, row, at, head, lane), k, lane);
    store(own_of(a.store_v, row, at, head, lane), v, lane);
}

extern "C" __global__ void __launch_bounds__(ATTEND_THREADS) append_keys(const __grid_constant__ AttendArguments a) {
    release_next();
    await_previous();
    int lane = threadIdx.x % LANES;
    int64 unit = ((int64)blockIdx.x * ATTEND_THREADS + threadIdx.x) / LANES;
    if (unit >= (int64)a.rows * a.keys * a.kv_heads) return;
    int head = (int)(unit % a.kv_heads), j = (int)(unit / a.kv_heads % a.keys), row = (int)(unit / a.kv_heads / a.keys);
    store_new_key(a, row, j, head, past_of(a, row), lane);
}

// ---- attend_window ----

// Keys whose scores are summed side by side.
#define WINDOW_STEP 2

template <int KEYS> DEVICE void attend_window(const AttendArguments &a) {
    release_next();
    await_previous();
    int lane = threadIdx.x % LANES, group = group_of(a);
    int64 unit = ((int64)blockIdx.x * blockDim.x + threadIdx.x) / LANES, units = (int64)a.rows * a.kv_heads;
    // Every lane stays for the shuffles; those past the end repeat the last head and store nothing.
    bool live = unit < units;
    if (!live) unit = units - 1;
    int row = (int)(unit / a.kv_heads), head = (int)(unit - (int64)row * a.kv_heads);
    // The same for every row: whole warps skip keys that nobody has.
    int past = a.past_base, total = min(past + a.keys, KEYS);
    int visible = visible_of(a, row, total);

    // All of it is on its way before the first use.
    const T *cached_k = once(own_of(a.cache_k, row, 0, head, lane)), *new_k = once(own_of(a.k, row, -past, head, lane));
    const T *cached_v = once(own_of(a.cache_v, row, 0, head, lane)), *new_v = once(own_of(a.v, row, -past, head, lane));
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
    const T *from_q = once(own_of(a.q, row, 0, head * group, lane));
    Vector next;
    Angles next_angles = {};
    load(next, from_q, lane);
    load(next_angles, a, past + a.first_query, lane);

    int stored = a.store_at_past ? 0 : -past;
    T *to_k = once(own_of(a.store_k, row, stored, head, lane)), *to_v = once(own_of(a.store_v, row, stored, head, lane));
#pragma unroll
    for (int j = 0; j < KEYS; ++j)
        if (j >= past && j < total) {
            rotate(k[j], a, j, lane);
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

// Registers of a lane's part of a key and its value, and the blocks that share a multiprocessor with so many keys each.
constexpr int KEY_REGISTERS = 4 * PER * ((WORD_BYTES + 3) / 4);
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

// ---- attend_cache ----

// Keys that a group of lanes has in flight for one query where a lane has one word of each half, and those that it adds to
// the sums at once.
#define CACHE_DEPTH 8
#define CACHE_STEP 4

// A group's share of the softmax of one query.
struct Partial {
    float largest;
    float sum;
    Floats values;
};

// Adds CACHE_STEP keys, but those whose score is NO_SCORE.
DEVICE void absorb(Partial &p, const float (&score)[CACHE_STEP], const Vector *values) {
    float largest = p.largest;
#pragma unroll
    for (int u = 0; u < CACHE_STEP; ++u) largest = fmaxf(largest, score[u]);
    float keep = exp_of(p.largest - largest);
    p.largest = largest;
    p.sum *= keep;
#pragma unroll
    for (int e = 0; e < PER * PAIR; ++e) {
        p.values.low[e] *= keep;
        p.values.high[e] *= keep;
    }
#pragma unroll
    for (int u = 0; u < CACHE_STEP; ++u) {
        float weight = score[u] == NO_SCORE ? 0.0f : exp_of(score[u] - largest);
        p.sum += weight;
        add(p.values, weight, values[u]);
    }
}

// Joins the groups' shares in shared memory and stores the result of `count` queries from `item` on.
template <int QUERIES>
DEVICE void join(const AttendArguments &a, const Partial (&partial)[QUERIES], int row, int head, int item, int count) {
    __shared__ float largest[QUERIES][ATTEND_THREADS / LANES];
    __shared__ float sums[QUERIES][ATTEND_THREADS / LANES];
    __shared__ float values[QUERIES][ATTEND_THREADS / LANES][DIM];
    int lane = threadIdx.x % LANES, own = threadIdx.x / LANES, units = blockDim.x / LANES, group = group_of(a);
    __syncthreads();
#pragma unroll
    for (int b = 0; b < QUERIES; ++b) {
        if (lane == 0) {
            largest[b][own] = partial[b].largest;
            sums[b][own] = partial[b].sum;
        }
#pragma unroll
        for (int e = 0; e < PER * PAIR; ++e)
            if (has_word(lane, e / PAIR)) {
                int t = (lane + e / PAIR * LANES) * PAIR + e % PAIR;
                values[b][own][t] = partial[b].values.low[e];
                values[b][own][t + HALF] = partial[b].values.high[e];
            }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < count * DIM; i += blockDim.x) {
        int b = i / DIM, t = i % DIM, query = (item + b) / group, q_head = head * group + (item + b) % group;
        float top = NO_SCORE, sum = 0.0f, value = 0.0f;
        for (int u = 0; u < units; ++u) top = fmaxf(top, largest[b][u]);
        for (int u = 0; u < units; ++u) {
            float weight = exp_of(largest[b][u] - top);
            sum += weight * sums[b][u];
            value += weight * values[b][u][t];
        }
        head_of(a.out, row, query, q_head)[t] = from_float<T>(sum > 0.0f ? value / sum : 0.0f);
    }
}

// Where a group of lanes reads its keys, and the way from one of them to the next.
struct CachePlaces {
    const T *k;
    const T *v;
    int64 step_k;
    int64 step_v;
};

// The group's next keys from `start` on, the new ones turned; zeros from the key `end` on.
template <int DEPTH>
DEVICE void load_keys(Vector (&k)[DEPTH], Vector (&v)[DEPTH], const AttendArguments &a, const CachePlaces &places,
                      int row, int head, int start, int past, int end) {
    int lane = threadIdx.x % LANES, own = threadIdx.x / LANES, units = blockDim.x / LANES;
    if (start + DEPTH * units <= min(past, end)) {
#pragma unroll
        for (int u = 0; u < DEPTH; ++u) {
            load(k[u], places.k + u * places.step_k, lane);
            load(v[u], places.v + u * places.step_v, lane);
        }
        return;
    }
    // As if the cache went on there.
    const T *new_k = once(own_of(a.k, row, -past, head, lane)), *new_v = once(own_of(a.v, row, -past, head, lane));
#pragma unroll
    for (int u = 0; u < DEPTH; ++u) {
        int j = start + u * units + own;
        const T *from_k = once(j < past ? places.k + u * places.step_k : new_k + j * a.k.position);
        const T *from_v = once(j < past ? places.v + u * places.step_v : new_v + j * a.v.position);
        k[u] = Vector{};
        v[u] = Vector{};
        if (j < end) {
            load(k[u], from_k, lane);
            load(v[u], from_v, lane);
        }
    }
#pragma unroll
    for (int u = 0; u < DEPTH; ++u) {
        int j = start + u * units + own;
        if (j >= past && j < end) rotate(k[u], a, j, lane);
    }
}

// Up to QUERIES queries (item counts those of the key head: query * group + member) over all keys of (row, head).
template <int QUERIES> DEVICE void attend_items(const AttendArguments &a, int row, int head, int item, int count) {
    constexpr int DEPTH = QUERIES == 1 && PER == 1 ? CACHE_DEPTH : CACHE_STEP;
    int lane = threadIdx.x % LANES, own = threadIdx.x / LANES, units = blockDim.x / LANES, group = group_of(a);
    int past = past_of(a, row), total = past + a.keys, visible = visible_of(a, row, total);
    Vector raw[QUERIES];
    Angles angles[QUERIES] = {};
    Floats q[QUERIES] = {};
    int seen[QUERIES], end = 0;
    Partial partial[QUERIES];
#pragma unroll
    for (int b = 0; b < QUERIES; ++b) {
        // Those past the last repeat it and see nothing.
        int own_item = item + min(b, count - 1), query = own_item / group, position = past + a.first_query + query;
        load(raw[b], own_of(a.q, row, query, head * group + own_item % group, lane), lane);
        load(angles[b], a, position, lane);
        seen[b] = b < count ? seen_by(a, position, visible) : 0;
        end = max(end, seen[b]);
        partial[b] = Partial{NO_SCORE, 0.0f, {}};
    }
    CachePlaces places = {once(own_of(a.cache_k, row, own, head, lane)), once(own_of(a.cache_v, row, own, head, lane)),
                          units * a.cache_k.position, units * a.cache_v.position};
    // The same trips for every thread: the shuffles need whole warps.
    for (int start = 0; start < end; start += DEPTH * units) {
        Vector k[DEPTH], v[DEPTH];
        load_keys<DEPTH>(k, v, a, places, row, head, start, past, end);
        places.k += DEPTH * places.step_k;
        places.v += DEPTH * places.step_v;
        // Behind the first keys' loads.
        if (start == 0)
#pragma unroll
            for (int b = 0; b < QUERIES; ++b) q[b] = query_of(raw[b], angles[b], a, lane);
#pragma unroll
        for (int first = 0; first < DEPTH; first += CACHE_STEP)
            if (start + first * units < end)
#pragma unroll
                for (int b = 0; b < QUERIES; ++b) {
                    float score[CACHE_STEP];
#pragma unroll
                    for (int u = 0; u < CACHE_STEP; ++u) {
                        int j = start + (first + u) * units + own;
                        float product = dot(q[b], floats_of(k[first + u])) * a.scale;
                        score[u] = j < seen[b] ? product : NO_SCORE;
                    }
                    absorb(partial[b], score, v + first);
                }
    }
    join<QUERIES>(a, partial, row, head, item, count);
}

// The last groups of lanes do it: the first have the results to store.
DEVICE void store_new_keys(const AttendArguments &a, int row, int head) {
    int lane = threadIdx.x % LANES, units = blockDim.x / LANES, past = past_of(a, row);
    for (int j = units - 1 - threadIdx.x / LANES; j < a.keys; j += units) {
        store_new_key(a, row, j, head, past, lane);
    }
}

template <int QUERIES> DEVICE void attend_cache(const AttendArguments &a) {
    release_next();
    await_previous();
    int row = blockIdx.x / a.kv_heads, head = blockIdx.x % a.kv_heads, items = a.queries * group_of(a);
    for (int item = 0; item < items; item += QUERIES)
        attend_items<QUERIES>(a, row, head, item, min(QUERIES, items - item));
    if (a.store_k.base) store_new_keys(a, row, head);
}

// Blocks of 256 threads that share a multiprocessor where a key takes few registers; before sm_90 these do not suffice.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr int CACHE_BLOCKS = 1;
#else
constexpr int CACHE_BLOCKS = KEY_REGISTERS <= 4 ? 3 : 1;
#endif
extern "C" __global__ void __launch_bounds__(ATTEND_THREADS, CACHE_BLOCKS) attend_cache_1(const __grid_constant__ AttendArguments a) {
    attend_cache<1>(a);
}
extern "C" __global__ void __launch_bounds__(ATTEND_THREADS) attend_cache_4(const __grid_constant__ AttendArguments a) {
    attend_cache<4>(a);
}

// ---- attend_stream ----

#if PHOTONC_TYPE == 0

extern "C" __global__ void __launch_bounds__(ATTEND_THREADS) attend_stream(const __grid_constant__ AttendArguments a) {
    release_next();
    await_previous();
    int query = blockIdx.x % a.queries, pair = blockIdx.x / a.queries, group = a.heads / a.kv_heads;
    for (int member = 0; member < group; ++member)
        attend_items<1>(a, pair / a.kv_heads, pair % a.kv_heads, query * group + member, 1);
}

#else

#define STREAM_THREADS 128
#define STREAM_QUERIES 64

// Width of a head in steps of the tensor cores, keys of a tile, and elements from one row to the next in shared memory;
// the gap of 8 spreads a warp's 4-byte reads over all banks.
constexpr int PADDED = (DIM + 15) / 16 * 16;
constexpr int TILE = PADDED <= 128 ? 64 : 32;
constexpr int ROW = PADDED + 8;
// Queries stay in registers where there is room.
constexpr bool QUERIES_STAY = PADDED <= 128;
// Tiles of keys and of values take turns in shared memory, each on its way while those before it are in use. Queries that
// stay in registers leave their place to a tile.
constexpr int SLOTS = QUERIES_STAY && PADDED >= 64 ? 3 : 2;

// Blocks that share a multiprocessor where their sums leave room.
constexpr int STREAM_BLOCKS = PADDED <= 64 ? 4 : 1;

struct StreamTiles {
    T *q; // [STREAM_QUERIES][ROW]

    // Tile 2n has the n-th keys, tile 2n + 1 their values: [TILE][ROW].
    DEVICE T *tile(int n) const {
        return QUERIES_STAY ? q + (n + 1) % SLOTS * TILE * ROW : q + STREAM_QUERIES * ROW + n % SLOTS * TILE * ROW;
    }
};

DEVICE unsigned word_at(const T *from) { return *(const unsigned *)from; }

// Words that a thread has on their way while it stages queries.
#define STAGE_DEPTH 4

// Rotated queries; zeros past the last one and past the head's width.
DEVICE void stage_queries(const AttendArguments &a, const StreamTiles &s, int row, int head, int first, int past) {
    constexpr int WORDS = HALF / PAIR, ALL = STREAM_QUERIES * WORDS;
    const T *queries = once(head_of(a.q, row, first, head));
    for (int start = threadIdx.x; start < ALL; start += STAGE_DEPTH * STREAM_THREADS) {
        Word low[STAGE_DEPTH] = {}, high[STAGE_DEPTH] = {};
        Turn turn[STAGE_DEPTH] = {};
#pragma unroll
        for (int u = 0; u < STAGE_DEPTH; ++u) {
            int i = start + u * STREAM_THREADS, query = i / WORDS, t = i % WORDS * PAIR;
            if (i < ALL && first + query < a.queries) {
                const T *from = queries + query * a.q.position + t;
                low[u] = *(const Word *)from;
                high[u] = *(const Word *)(from + HALF);
                if (a.table) turn[u] = *(const Turn *)(angles_at(a, past + a.first_query + first + query) + 2 * t);
            }
        }
#pragma unroll
        for (int u = 0; u < STAGE_DEPTH; ++u) {
            int i = start + u * STREAM_THREADS, query = i / WORDS, t = i % WORDS * PAIR;
            if (i >= ALL) continue;
            float x[PAIR], y[PAIR];
#pragma unroll
            for (int e = 0; e < PAIR; ++e) {
                float cosine = a.table ? turn[u].cosine_sine[2 * e] : 1.0f, sine = turn[u].cosine_sine[2 * e + 1];
                float below = element_of<T>(low[u], e), above = element_of<T>(high[u], e);
                x[e] = below * cosine - above * sine;
                y[e] = above * cosine + below * sine;
            }
            T *to = s.q + query * ROW + t;
            *(Word *)to = word_of<T>(x);
            *(Word *)(to + HALF) = word_of<T>(y);
        }
    }
}

// Zeros past the head's width, in rows that no copy reaches there.
DEVICE void clear_gaps(T *rows, int count) {
    constexpr int WORDS = (PADDED - DIM) / 2;
    if constexpr (WORDS > 0)
        for (int i = threadIdx.x; i < count * WORDS; i += STREAM_THREADS)
            *(unsigned *)(rows + i / WORDS * ROW + DIM + 2 * (i % WORDS)) = 0u;
}

// Bytes of the widest copies that a layout allows.
DEVICE int copy_bytes(const Heads &heads) {
    uint64 all = (uint64)heads.base | (uint64)(heads.row | heads.position | heads.head | DIM) * sizeof(T);
    return all % 16 == 0 ? 16 : all % 8 == 0 ? 8 : 4;
}

template <int BYTES> DEVICE void copy_rows(T *to, const T *from, int64 position, int start, int end) {
    constexpr int EACH = BYTES / (int)sizeof(T), COPIES = DIM / EACH;
    if constexpr (DIM % EACH == 0) {
#pragma unroll 4
        for (int i = threadIdx.x; i < TILE * COPIES; i += STREAM_THREADS) {
            int key = i / COPIES, t = i % COPIES * EACH, at = min(start + key, end - 1);
            copy_later<BYTES>(to + key * ROW + t, from + at * position + t, start + key < end);
        }
    }
}

// Starts the copies of tile n: zeros from the key `end` on. They are a group even where there is nothing left.
DEVICE void start_tile(const StreamTiles &s, const T *from, int64 position, int bytes, int n, int end) {
    int start = n / 2 * TILE;
    if (start < end) {
        T *to = s.tile(n);
        if (bytes == 16)
            copy_rows<16>(to, from, position, start, end);
        else if (bytes == 8)
            copy_rows<8>(to, from, position, start, end);
        else
            copy_rows<4>(to, from, position, start, end);
    }
    end_copy_group();
}

DEVICE void query_fragment(unsigned (&to)[4], const T *q, int step) {
    int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    to[0] = word_at(q + g * ROW + step * 16 + 2 * t);
    to[1] = word_at(q + (g + 8) * ROW + step * 16 + 2 * t);
    to[2] = word_at(q + g * ROW + step * 16 + 2 * t + 8);
    to[3] = word_at(q + (g + 8) * ROW + step * 16 + 2 * t + 8);
}

// Sixteen queries' running softmax: a lane has rows g and g + 8 of it.
struct StreamState {
    float out[PADDED / 8][4];
    float largest[2];
    float sum[2];
};

// Scores of one tile to weights: masks, moves the running maximum, rescales what was summed before.
DEVICE void weigh(StreamState &state, float (&score)[TILE / 8][4], const int (&seen)[2], int start, float scale) {
    int t = threadIdx.x & 3;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float largest = state.largest[half];
        bool edge = start + TILE > seen[half];
#pragma unroll
        for (int n = 0; n < TILE / 8; ++n)
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; ++i) {
                score[n][i] *= scale;
                if (edge && start + 8 * n + 2 * t + (i & 1) >= seen[half]) score[n][i] = NO_SCORE;
                largest = fmaxf(largest, score[n][i]);
            }
        largest = lanes_max<4>(largest);
        // Before the first key that is seen the weights are zeros.
        float base = largest == NO_SCORE ? 0.0f : largest;
        float keep = fast_exp2(state.largest[half] - base), sum = 0.0f;
#pragma unroll
        for (int n = 0; n < TILE / 8; ++n)
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; ++i) {
                score[n][i] = fast_exp2(score[n][i] - base);
                sum += score[n][i];
            }
        state.largest[half] = largest;
        state.sum[half] = state.sum[half] * keep + lanes_sum<4>(sum);
#pragma unroll
        for (int n = 0; n < PADDED / 8; ++n)
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; ++i) state.out[n][i] *= keep;
    }
}

DEVICE void score_tile(float (&score)[TILE / 8][4], const T *keys, const T *q, const unsigned (&kept)[PADDED / 16][4]) {
#pragma unroll
    for (int n = 0; n < TILE / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) score[n][i] = 0.0f;
    }
#pragma unroll
    for (int step = 0; step < PADDED / 16; ++step) {
        unsigned fragment[4];
        if (QUERIES_STAY) {
#pragma unroll
            for (int i = 0; i < 4; ++i) fragment[i] = kept[step][i];
        } else {
            query_fragment(fragment, q, step);
        }
#pragma unroll
        for (int n = 0; n < TILE / 8; n += 2) {
            unsigned b[2][2];
            load_columns(b, keys + 8 * n * ROW + step * 16, ROW);
            mma_m16n8k16<T>(score[n], fragment, b[0]);
            mma_m16n8k16<T>(score[n + 1], fragment, b[1]);
        }
    }
}

DEVICE void add_values(StreamState &state, const float (&score)[TILE / 8][4], const T *values) {
#pragma unroll
    for (int step = 0; step < TILE / 16; ++step) {
        const unsigned weights[4] = {
            pack<T>(score[2 * step][0], score[2 * step][1]), pack<T>(score[2 * step][2], score[2 * step][3]),
            pack<T>(score[2 * step + 1][0], score[2 * step + 1][1]), pack<T>(score[2 * step + 1][2], score[2 * step + 1][3])};
#pragma unroll
        for (int n = 0; n < PADDED / 8; n += 2) {
            unsigned b[2][2];
            load_rows(b, values + step * 16 * ROW + 8 * n, ROW);
            mma_m16n8k16<T>(state.out[n], weights, b[0]);
            mma_m16n8k16<T>(state.out[n + 1], weights, b[1]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(STREAM_THREADS, STREAM_BLOCKS) attend_stream(const __grid_constant__ AttendArguments a) {
    release_next();
    await_previous();
    int tiles = (a.queries + STREAM_QUERIES - 1) / STREAM_QUERIES, pair = blockIdx.x / tiles;
    // The last queries see most: they go first.
    int first = (tiles - 1 - (int)(blockIdx.x % tiles)) * STREAM_QUERIES;
    int row = pair / a.heads, head = pair % a.heads, kv_head = head / (a.heads / a.kv_heads);
    int past = past_of(a, row), visible = visible_of(a, row, past), position0 = past + a.first_query + first;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    int last = min(first + STREAM_QUERIES, a.queries) - 1 - first;
    int end = seen_by(a, position0 + last, visible);
    const T *keys = once(head_of(a.cache_k, row, 0, kv_head)), *values = once(head_of(a.cache_v, row, 0, kv_head));
    int key_bytes = copy_bytes(a.cache_k), value_bytes = copy_bytes(a.cache_v);
    StreamTiles s = {(T *)dynamic_shared()};
    // A later tile in the queries' place finds their gaps cleared.
    clear_gaps(s.q, STREAM_QUERIES);
    clear_gaps(s.tile(0), TILE);
    if (SLOTS == 3 || !QUERIES_STAY) clear_gaps(s.tile(1), TILE);
    start_tile(s, keys, a.cache_k.position, key_bytes, 0, end);
    if (SLOTS == 3) start_tile(s, values, a.cache_v.position, value_bytes, 1, end);
    stage_queries(a, s, row, head, first, past);
    __syncthreads();

    const T *q = s.q + 16 * warp * ROW;
    unsigned kept[PADDED / 16][4] = {};
    if (QUERIES_STAY) {
#pragma unroll
        for (int step = 0; step < PADDED / 16; ++step) query_fragment(kept[step], q, step);
    }
    StreamState state = {};
    int seen[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        state.largest[half] = NO_SCORE;
        seen[half] = seen_by(a, position0 + 16 * warp + g + 8 * half, visible);
    }
    // The weights' base is 2.
    float scale = a.scale * 1.4426950408889634f;
    for (int start = 0, n = 0; start < end; start += TILE, n += 2) {
        float score[TILE / 8][4];
        // A tile's place is free once every warp has come past the barrier behind its use.
        copies_left<SLOTS - 2>();
        __syncthreads();
        if (SLOTS == 3)
            start_tile(s, keys, a.cache_k.position, key_bytes, n + 2, end);
        else
            start_tile(s, values, a.cache_v.position, value_bytes, n + 1, end);
        score_tile(score, s.tile(n), q, kept);
        weigh(state, score, seen, start, scale);
        copies_left<SLOTS - 2>();
        __syncthreads();
        if (SLOTS == 3)
            start_tile(s, values, a.cache_v.position, value_bytes, n + 3, end);
        else
            start_tile(s, keys, a.cache_k.position, key_bytes, n + 2, end);
        add_values(state, score, s.tile(n + 1));
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        int query = first + 16 * warp + g + 8 * half;
        if (query >= a.queries) continue;
        float share = state.sum[half] > 0.0f ? 1.0f / state.sum[half] : 0.0f;
        T *out = head_of(a.out, row, query, head);
#pragma unroll
        for (int n = 0; n < PADDED / 8; ++n)
            if (8 * n + 2 * t < DIM)
                *(unsigned *)(out + 8 * n + 2 * t) =
                    pack<T>(state.out[n][2 * half] * share, state.out[n][2 * half + 1] * share);
    }
}

#endif
