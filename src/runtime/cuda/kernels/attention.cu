// Attention with rotary positions for heads of PHOTONC_HEAD_DIM elements: AttendArguments.
//
// attend_window_{4,8,16}: at most that many keys in all. A group of lanes has one (row, key head): all of its keys and
// values go to registers at once, for every query.
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

struct alignas(sizeof(T) * PAIR) Word {
    T element[PAIR];
};

// A head's vector, spread over LANES lanes: words lane, lane + LANES, .. of either half. Elements t and t + HALF, which
// turn together, are in one lane.
struct Vector {
    Word low[PER];
    Word high[PER];
};
struct Floats {
    float low[PER * PAIR];
    float high[PER * PAIR];
};

DEVICE bool has_word(int lane, int i) { return lane + i * LANES < HALF / PAIR; }

DEVICE void clear(Vector &vector) {
#pragma unroll
    for (int i = 0; i < PER * PAIR; ++i) {
        vector.low[i / PAIR].element[i % PAIR] = from_float<T>(0.0f);
        vector.high[i / PAIR].element[i % PAIR] = from_float<T>(0.0f);
    }
}
DEVICE void load(Vector &vector, const T *from, int lane) {
#pragma unroll
    for (int i = 0; i < PER; ++i)
        if (has_word(lane, i)) {
            vector.low[i] = *(const Word *)(from + (lane + i * LANES) * PAIR);
            vector.high[i] = *(const Word *)(from + HALF + (lane + i * LANES) * PAIR);
        }
}
DEVICE void store(T *to, const Vector &vector, int lane) {
#pragma unroll
    for (int i = 0; i < PER; ++i)
        if (has_word(lane, i)) {
            *(Word *)(to + (lane + i * LANES) * PAIR) = vector.low[i];
            *(Word *)(to + HALF + (lane + i * LANES) * PAIR) = vector.high[i];
        }
}
DEVICE Floats floats_of(const Vector &vector) {
    Floats floats;
#pragma unroll
    for (int i = 0; i < PER * PAIR; ++i) {
        floats.low[i] = to_float(vector.low[i / PAIR].element[i % PAIR]);
        floats.high[i] = to_float(vector.high[i / PAIR].element[i % PAIR]);
    }
    return floats;
}
DEVICE Vector vector_of(const Floats &floats) {
    Vector vector;
#pragma unroll
    for (int i = 0; i < PER * PAIR; ++i) {
        vector.low[i / PAIR].element[i % PAIR] = from_float<T>(floats.low[i]);
        vector.high[i / PAIR].element[i % PAIR] = from_float<T>(floats.high[i]);
    }
    return vector;
}

DEVICE const float *angles(const AttendArguments &a, int position) {
    int known = max(0, min(position, a.table_positions - 1));
    return a.table + (int64)known * DIM;
}

// Turns a vector by its position.
DEVICE void rotate(Vector &vector, const AttendArguments &a, int position, int lane) {
    if (!a.table) return;
    const float *table = angles(a, position);
    Floats x = floats_of(vector), y = x;
#pragma unroll
    for (int i = 0; i < PER * PAIR; ++i)
        if (has_word(lane, i / PAIR)) {
            int t = (lane + i / PAIR * LANES) * PAIR + i % PAIR;
            float cosine = table[2 * t], sine = table[2 * t + 1];
            y.low[i] = x.low[i] * cosine - x.high[i] * sine;
            y.high[i] = x.high[i] * cosine + x.low[i] * sine;
        }
    vector = vector_of(y);
}

DEVICE float dot(const Floats &x, const Floats &y) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < PER * PAIR; ++i) sum += x.low[i] * y.low[i] + x.high[i] * y.high[i];
    return lanes_sum<LANES>(sum);
}

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

extern "C" __global__ void __launch_bounds__(ATTEND_THREADS) append_keys(const __grid_constant__ AttendArguments a) {
    release_next();
    await_previous();
    int lane = threadIdx.x % LANES;
    int64 unit = ((int64)blockIdx.x * ATTEND_THREADS + threadIdx.x) / LANES;
    if (unit >= (int64)a.rows * a.keys * a.kv_heads) return;
    int head = (int)(unit % a.kv_heads), j = (int)(unit / a.kv_heads % a.keys), row = (int)(unit / a.kv_heads / a.keys);
    int past = past_of(a, row), at = j + (a.store_at_past ? past : 0);
    Vector k, v;
    load(k, head_of(a.k, row, j, head), lane);
    load(v, head_of(a.v, row, j, head), lane);
    rotate(k, a, past + j, lane);
    store(head_of(a.store_k, row, at, head), k, lane);
    store(head_of(a.store_v, row, at, head), v, lane);
}

// ---- attend_window ----

template <int KEYS> DEVICE void attend_window(const AttendArguments &a) {
    release_next();
    await_previous();
    int lane = threadIdx.x % LANES;
    int64 unit = ((int64)blockIdx.x * ATTEND_THREADS + threadIdx.x) / LANES, units = (int64)a.rows * a.kv_heads;
    // Every lane stays for the shuffles; those past the end repeat the last head and store nothing.
    bool live = unit < units;
    if (!live) unit = units - 1;
    int head = (int)(unit % a.kv_heads), row = (int)(unit / a.kv_heads);
    int past = past_of(a, row), total = min(past + a.keys, KEYS);
    int visible = visible_of(a, row, total);
    // The same for every row, so that whole warps skip keys that nobody has.
    int most = a.lengths ? KEYS : min(a.past_base + a.keys, KEYS);

    Vector k[KEYS], v[KEYS];
#pragma unroll
    for (int j = 0; j < KEYS; ++j) {
        clear(k[j]);
        clear(v[j]);
        if (j < total) {
            bool cached = j < past;
            load(k[j], cached ? head_of(a.cache_k, row, j, head) : head_of(a.k, row, j - past, head), lane);
            load(v[j], cached ? head_of(a.cache_v, row, j, head) : head_of(a.v, row, j - past, head), lane);
        }
    }
#pragma unroll
    for (int j = 0; j < KEYS; ++j)
        if (j >= past && j < total) {
            rotate(k[j], a, j, lane);
            if (a.store_k.base && live) {
                int at = a.store_at_past ? j : j - past;
                store(head_of(a.store_k, row, at, head), k[j], lane);
                store(head_of(a.store_v, row, at, head), v[j], lane);
            }
        }

    int group = a.heads / a.kv_heads;
    for (int item = 0; item < a.queries * group; ++item) {
        int i = item / group, q_head = head * group + item % group, position = past + a.first_query + i;
        Vector raw;
        clear(raw);
        load(raw, head_of(a.q, row, i, q_head), lane);
        rotate(raw, a, position, lane);
        Floats q = floats_of(raw);
        int seen = seen_by(a, position, visible);
        float score[KEYS], largest = NO_SCORE, sum = 0.0f;
#pragma unroll
        for (int j = 0; j < KEYS; ++j) {
            score[j] = NO_SCORE;
            if (j < most) {
                float product = dot(q, floats_of(k[j])) * a.scale;
                if (j < seen) score[j] = product;
                largest = fmaxf(largest, score[j]);
            }
        }
        Floats out = {};
#pragma unroll
        for (int j = 0; j < KEYS; ++j)
            if (j < most) {
                float weight = j < seen ? exp_of(score[j] - largest) : 0.0f;
                sum += weight;
                Floats value = floats_of(v[j]);
#pragma unroll
                for (int e = 0; e < PER * PAIR; ++e) {
                    out.low[e] += weight * value.low[e];
                    out.high[e] += weight * value.high[e];
                }
            }
        float share = sum > 0.0f ? 1.0f / sum : 0.0f;
#pragma unroll
        for (int e = 0; e < PER * PAIR; ++e) {
            out.low[e] *= share;
            out.high[e] *= share;
        }
        if (live) store(head_of(a.out, row, i, q_head), vector_of(out), lane);
    }
}

#define WINDOW(name, KEYS)                                                                                             \
    extern "C" __global__ void __launch_bounds__(ATTEND_THREADS) name(const __grid_constant__ AttendArguments a) { \
        attend_window<KEYS>(a);                                                                                        \
    }
WINDOW(attend_window_4, 4)
WINDOW(attend_window_8, 8)
// Wider heads would not fit into registers.
#if PHOTONC_HEAD_DIM <= 128
WINDOW(attend_window_16, 16)
#endif

// ---- attend_cache ----

// Keys that a group of lanes has in flight.
#define CACHE_DEPTH 4

// A group's share of the softmax of one query.
struct Partial {
    float largest;
    float sum;
    Floats values;
};

// Adds one key, or none where its score is NO_SCORE.
DEVICE void absorb(Partial &p, float score, const Floats &value) {
    float largest = fmaxf(p.largest, score), keep = exp_of(p.largest - largest);
    float weight = score == NO_SCORE ? 0.0f : exp_of(score - largest);
    p.largest = largest;
    p.sum = p.sum * keep + weight;
#pragma unroll
    for (int e = 0; e < PER * PAIR; ++e) {
        p.values.low[e] = p.values.low[e] * keep + weight * value.low[e];
        p.values.high[e] = p.values.high[e] * keep + weight * value.high[e];
    }
}

// Joins the groups' shares in shared memory and stores the result of `count` queries from `item` on.
template <int QUERIES>
DEVICE void join(const AttendArguments &a, const Partial (&partial)[QUERIES], int row, int head, int item, int count) {
    __shared__ float largest[QUERIES][ATTEND_THREADS / LANES];
    __shared__ float sums[QUERIES][ATTEND_THREADS / LANES];
    __shared__ float values[QUERIES][ATTEND_THREADS / LANES][DIM];
    int lane = threadIdx.x % LANES, own = threadIdx.x / LANES, units = blockDim.x / LANES, group = a.heads / a.kv_heads;
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

// Up to QUERIES queries (item counts those of the key head: query * group + member) over all keys of (row, head).
template <int QUERIES> DEVICE void attend_items(const AttendArguments &a, int row, int head, int item, int count) {
    int lane = threadIdx.x % LANES, own = threadIdx.x / LANES, units = blockDim.x / LANES, group = a.heads / a.kv_heads;
    int past = past_of(a, row), total = past + a.keys, visible = visible_of(a, row, total);
    Floats q[QUERIES];
    int seen[QUERIES], end = 0;
    Partial partial[QUERIES];
#pragma unroll
    for (int b = 0; b < QUERIES; ++b) {
        int query = (item + b) / group, position = past + a.first_query + query;
        Vector raw;
        clear(raw);
        if (b < count) {
            load(raw, head_of(a.q, row, query, head * group + (item + b) % group), lane);
            rotate(raw, a, position, lane);
        }
        q[b] = floats_of(raw);
        seen[b] = b < count ? seen_by(a, position, visible) : 0;
        end = max(end, seen[b]);
        partial[b] = Partial{NO_SCORE, 0.0f, {}};
    }
    // The same trips for every thread: the shuffles need whole warps.
    for (int start = 0; start < end; start += CACHE_DEPTH * units) {
        Vector k[CACHE_DEPTH], v[CACHE_DEPTH];
#pragma unroll
        for (int u = 0; u < CACHE_DEPTH; ++u) {
            int j = start + u * units + own;
            clear(k[u]);
            clear(v[u]);
            if (j < end) {
                bool cached = j < past;
                load(k[u], cached ? head_of(a.cache_k, row, j, head) : head_of(a.k, row, j - past, head), lane);
                load(v[u], cached ? head_of(a.cache_v, row, j, head) : head_of(a.v, row, j - past, head), lane);
            }
        }
#pragma unroll
        for (int u = 0; u < CACHE_DEPTH; ++u) {
            int j = start + u * units + own;
            if (j >= past && j < end) rotate(k[u], a, j, lane);
            Floats key = floats_of(k[u]), value = floats_of(v[u]);
#pragma unroll
            for (int b = 0; b < QUERIES; ++b) {
                float score = dot(q[b], key) * a.scale;
                absorb(partial[b], j < seen[b] ? score : NO_SCORE, value);
            }
        }
    }
    join<QUERIES>(a, partial, row, head, item, count);
}

DEVICE void store_new_keys(const AttendArguments &a, int row, int head) {
    int lane = threadIdx.x % LANES, past = past_of(a, row);
    for (int j = threadIdx.x / LANES; j < a.keys; j += blockDim.x / LANES) {
        int at = j + (a.store_at_past ? past : 0);
        Vector k, v;
        load(k, head_of(a.k, row, j, head), lane);
        load(v, head_of(a.v, row, j, head), lane);
        rotate(k, a, past + j, lane);
        store(head_of(a.store_k, row, at, head), k, lane);
        store(head_of(a.store_v, row, at, head), v, lane);
    }
}

template <int QUERIES> DEVICE void attend_cache(const AttendArguments &a) {
    release_next();
    await_previous();
    int row = blockIdx.x / a.kv_heads, head = blockIdx.x % a.kv_heads, items = a.queries * (a.heads / a.kv_heads);
    if (a.store_k.base) store_new_keys(a, row, head);
    for (int item = 0; item < items; item += QUERIES)
        attend_items<QUERIES>(a, row, head, item, min(QUERIES, items - item));
}

extern "C" __global__ void __launch_bounds__(ATTEND_THREADS) attend_cache_1(const __grid_constant__ AttendArguments a) {
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
constexpr int COLUMN = TILE + 8;
// Queries stay in registers where there is room.
constexpr bool QUERIES_STAY = PADDED <= 128;

struct StreamTiles {
    T *q; // [STREAM_QUERIES][ROW]
    T *k; // [TILE][ROW]
    T *v; // [PADDED][COLUMN], transposed
};

DEVICE unsigned word_at(const T *from) { return *(const unsigned *)from; }

// Rotated queries; zeros past the last one and past the head's width.
DEVICE void stage_queries(const AttendArguments &a, const StreamTiles &s, int row, int head, int first, int past) {
    for (int i = threadIdx.x; i < STREAM_QUERIES * (PADDED / 2); i += STREAM_THREADS) {
        int query = i / (PADDED / 2), t = i % (PADDED / 2);
        T *to = s.q + query * ROW;
        if (t >= HALF) {
            to[DIM + 2 * (t - HALF)] = from_float<T>(0.0f);
            to[DIM + 2 * (t - HALF) + 1] = from_float<T>(0.0f);
            continue;
        }
        float x = 0.0f, y = 0.0f;
        if (first + query < a.queries) {
            const T *from = head_of(a.q, row, first + query, head);
            float low = to_float(from[t]), high = to_float(from[t + HALF]), cosine = 1.0f, sine = 0.0f;
            if (a.table) {
                const float *table = angles(a, past + a.first_query + first + query);
                cosine = table[2 * t];
                sine = table[2 * t + 1];
            }
            x = low * cosine - high * sine;
            y = high * cosine + low * sine;
        }
        to[t] = from_float<T>(x);
        to[t + HALF] = from_float<T>(y);
    }
}

// Keys [start, start + TILE), zeros from `end` on and past the head's width; values likewise, transposed two keys at a
// time.
DEVICE void stage_keys(const AttendArguments &a, const StreamTiles &s, int row, int head, int start, int end) {
    for (int i = threadIdx.x; i < TILE * (PADDED / 2); i += STREAM_THREADS) {
        int key = i / (PADDED / 2), t = 2 * (i % (PADDED / 2));
        bool present = start + key < end && t < DIM;
        *(unsigned *)(s.k + key * ROW + t) = present ? word_at(head_of(a.cache_k, row, start + key, head) + t) : 0u;
    }
    for (int i = threadIdx.x; i < TILE / 2 * (PADDED / 2); i += STREAM_THREADS) {
        // Eight lanes read a sector of a row; the next four rows go to the banks between theirs.
        int t = 2 * (i % 8 + i / (8 * (TILE / 2)) * 8), key = 2 * (i / 8 % (TILE / 2));
        bool first = start + key < end && t < DIM, second = start + key + 1 < end && t < DIM;
        unsigned x = first ? word_at(head_of(a.cache_v, row, start + key, head) + t) : 0u;
        unsigned y = second ? word_at(head_of(a.cache_v, row, start + key + 1, head) + t) : 0u;
        *(unsigned *)(s.v + t * COLUMN + key) = (x & 0xffffu) | (y << 16);
        *(unsigned *)(s.v + (t + 1) * COLUMN + key) = (x >> 16) | (y & 0xffff0000u);
    }
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
#pragma unroll
        for (int n = 0; n < TILE / 8; ++n)
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; ++i) {
                bool present = start + 8 * n + 2 * t + (i & 1) < seen[half];
                score[n][i] = present ? score[n][i] * scale : NO_SCORE;
                largest = fmaxf(largest, score[n][i]);
            }
        largest = lanes_max<4>(largest);
        float keep = fast_exp2(state.largest[half] - largest), sum = 0.0f;
#pragma unroll
        for (int n = 0; n < TILE / 8; ++n)
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; ++i) {
                score[n][i] = score[n][i] == NO_SCORE ? 0.0f : fast_exp2(score[n][i] - largest);
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

DEVICE void attend_tile(StreamState &state, const StreamTiles &s, const T *q, const unsigned (&kept)[PADDED / 16][4],
                        const int (&seen)[2], int start, float scale) {
    int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    float score[TILE / 8][4];
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
        for (int n = 0; n < TILE / 8; ++n) {
            const T *key = s.k + (8 * n + g) * ROW + step * 16 + 2 * t;
            const unsigned b[2] = {word_at(key), word_at(key + 8)};
            mma_m16n8k16<T>(score[n], fragment, b);
        }
    }
    weigh(state, score, seen, start, scale);
#pragma unroll
    for (int step = 0; step < TILE / 16; ++step) {
        const unsigned weights[4] = {
            pack<T>(score[2 * step][0], score[2 * step][1]), pack<T>(score[2 * step][2], score[2 * step][3]),
            pack<T>(score[2 * step + 1][0], score[2 * step + 1][1]), pack<T>(score[2 * step + 1][2], score[2 * step + 1][3])};
#pragma unroll
        for (int n = 0; n < PADDED / 8; ++n) {
            const T *value = s.v + (8 * n + g) * COLUMN + step * 16 + 2 * t;
            const unsigned b[2] = {word_at(value), word_at(value + 8)};
            mma_m16n8k16<T>(state.out[n], weights, b);
        }
    }
}

extern "C" __global__ void __launch_bounds__(STREAM_THREADS) attend_stream(const __grid_constant__ AttendArguments a) {
    release_next();
    await_previous();
    int tiles = (a.queries + STREAM_QUERIES - 1) / STREAM_QUERIES, pair = blockIdx.x / tiles;
    // The last queries see most: they go first.
    int first = (tiles - 1 - (int)(blockIdx.x % tiles)) * STREAM_QUERIES;
    int row = pair / a.heads, head = pair % a.heads, kv_head = head / (a.heads / a.kv_heads);
    int past = past_of(a, row), visible = visible_of(a, row, past), position0 = past + a.first_query + first;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    StreamTiles s;
    s.q = (T *)dynamic_shared();
    s.k = s.q + STREAM_QUERIES * ROW;
    s.v = s.k + TILE * ROW;
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
    int last = min(first + STREAM_QUERIES, a.queries) - 1 - first;
    int end = seen_by(a, position0 + last, visible);
    // The weights' base is 2.
    float scale = a.scale * 1.4426950408889634f;
    for (int start = 0; start < end; start += TILE) {
        __syncthreads();
        stage_keys(a, s, row, kv_head, start, end);
        __syncthreads();
        attend_tile(state, s, q, kept, seen, start, scale);
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
