// Attention with rotary positions for heads of PHOTONC_HEAD_DIM elements: what the kernels of AttendArguments share. Owns how
// a head lies over the lanes, rotation, and the softmax of a block in parts.
//
// Rotated queries and keys are rounded to T, as they are in the cache; scores and sums are f32. A query that sees no key
// yields zeros.
#pragma once
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

// Registers of a lane's part of a key and its value.
constexpr int KEY_REGISTERS = 4 * PER * ((WORD_BYTES + 3) / 4);

// ---- new keys ----

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

// ---- queries over many keys ----

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
