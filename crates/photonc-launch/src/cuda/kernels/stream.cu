// Attention of many queries: AttendArguments.
//
// attend_stream: queries over keys that append_keys has put into the cache (`keys` is 0, the cache holds `past` keys
// with those of the queries, first_query is negative). Tensor cores, 64 queries of a head a block; for f32 the cache's way,
// one query a block.
#include "attention.cuh"

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
