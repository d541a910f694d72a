// Matrix products with few rows, and of any size and type: LinearArguments.
//
// linear_skinny_m{8,16,32,64}_r{1,2}: bf16 and f16, bound by the bandwidth of the weights. A block owns 16 * r weight rows
// (r2 with SwiGLU: 16 gate rows and their 16 up rows) and walks over further ones by the size of the grid; its warps share
// out k in steps of 32 and add up through shared memory. The weights are the 16-row operand of the tensor cores: a lane's
// 16-byte load covers eight neighbouring k of one row, and x is read from shared memory in the same order, so that one
// load of each feeds two products. DEPTH loads per weight row are always in flight; the first ones are issued before the
// previous launch has ended. Wants: k a multiple of 8, weight and norm 16-byte aligned, rows of x likewise.
//
// linear_any: every type, size and alignment, no tensor cores.
#include "device.cuh"

#define LINEAR_THREADS 256
#define LINEAR_WARPS 8

// act, bias and residual of one output, and its store. `second` is the up product of SwiGLU.
DEVICE void finish_output(const LinearArguments &a, int row, int column, float value, float second) {
    if (a.mode == 1) value = silu(value) * second;
    if (a.bias) value += to_float(((const T *)a.bias)[column]);
    if (a.residual.base) value += to_float(row_of(a.residual, row)[column]);
    if (a.wide)
        ((float *)a.out.base)[row_offset(a.out, row) + column] = value;
    else
        row_of(a.out, row)[column] = from_float<T>(value);
}

#if PHOTONC_TYPE != 0

// Columns of one tensor-core step, twice: what a 16-byte load of four lanes covers.
#define STEP 32
// Floats from one row of partial sums to the next: 16 and a gap that keeps the stores off each other's banks.
#define PARTIAL_STRIDE 20

// x in shared memory: rows of `stride` elements, of which columns start .. start + columns of x are there.
struct Staged {
    T *data;
    float *sums; // [rows * parts] sums of squares
    int stride;
    int rows;
    int row0;
    int parts; // warps that share a row
};

// Sums of squares of whole rows, where x does not fit at once.
DEVICE void measure_rows(const LinearArguments &a, const Staged &s) {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, part = warp % s.parts;
    for (int m = warp / s.parts; m < s.rows; m += LINEAR_WARPS / s.parts) {
        const T *source = row_of(a.x, s.row0 + m);
        float sum = 0.0f;
#pragma unroll 4
        for (int at = (part * 32 + lane) * 8; at < a.k; at += 256 * s.parts) {
            float values[8];
            unpack(values, load16(source + at), T());
#pragma unroll
            for (int i = 0; i < 8; ++i) sum += values[i] * values[i];
        }
        sum = lanes_sum<32>(sum);
        if (lane == 0) s.sums[m * s.parts + part] = sum;
    }
}

// Brings columns [start, end) of x into shared memory, normed where asked for; columns up to the next multiple of 32 are
// zero. `whole`: these are all the columns, so their squares are summed on the way.
DEVICE void stage(const LinearArguments &a, const Staged &s, int start, int end, bool whole) {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, part = warp % s.parts, step = 256 * s.parts;
    int width = (end - start + STEP - 1) / STEP * STEP, first = (part * 32 + lane) * 8;
    bool measure = a.norm && whole;
    for (int m = warp / s.parts; m < s.rows; m += LINEAR_WARPS / s.parts) {
        const T *source = row_of(a.x, s.row0 + m) + start;
        T *target = s.data + m * s.stride;
        float sum = 0.0f;
#pragma unroll 4
        for (int at = first; at < width; at += step) {
            Wide wide = start + at < end ? load16(source + at) : zero_wide();
            store16(target + at, wide);
            if (measure) {
                float values[8];
                unpack(values, wide, T());
#pragma unroll
                for (int i = 0; i < 8; ++i) sum += values[i] * values[i];
            }
        }
        if (measure) {
            sum = lanes_sum<32>(sum);
            if (lane == 0) s.sums[m * s.parts + part] = sum;
        }
    }
    if (!a.norm) return;
    if (measure) __syncthreads();
    for (int m = warp / s.parts; m < s.rows; m += LINEAR_WARPS / s.parts) {
        float sum = 0.0f;
        for (int i = 0; i < s.parts; ++i) sum += s.sums[m * s.parts + i];
        float scale = fast_rsqrt(sum / (float)a.k + a.eps);
        // Each thread scales what it stored itself.
        for (int at = first; at < end - start; at += step) {
            T *place = s.data + m * s.stride + at;
            float values[8], norm[8];
            unpack(values, load16(place), T());
            unpack(norm, load16((const T *)a.norm + start + at), T());
#pragma unroll
            for (int i = 0; i < 8; ++i) values[i] = values[i] * scale * norm[i];
            store16(place, packed(values, T()));
        }
    }
}

// Walks a warp's share of the weights in the order in which they are used: tiles of rows, stretches of `columns`, steps.
template <int RT, int DEPTH> struct WeightStream {
    const T *row[RT][2];
    int tile, tiles, start, end, item, items, warp, lane;

    DEVICE void open_tile(const LinearArguments &a) {
        int g = lane >> 2, span = a.mode == 1 ? 16 : 16 * RT;
#pragma unroll
        for (int r = 0; r < RT; ++r)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                // Rows past the end repeat the last one; their products are not stored.
                int within = tile * span + (a.mode == 1 ? 0 : 16 * r) + g + 8 * half;
                int64 at = (int64)min(within, a.n - 1) + (a.mode == 1 ? (int64)r * a.n : 0);
                row[r][half] = (const T *)a.weight + at * a.k + 8 * (lane & 3);
            }
    }
    // Steps of a stretch for each warp: a multiple of DEPTH, so that a step's registers are known at compile time.
    static DEVICE int items_of(int start, int end) {
        int steps = (end - start + STEP - 1) / STEP;
        int items = (steps + LINEAR_WARPS - 1) / LINEAR_WARPS;
        return (items + DEPTH - 1) / DEPTH * DEPTH;
    }
    DEVICE void open_stretch(const LinearArguments &a, int from) {
        start = from;
        end = min(a.k, from + a.columns);
        item = 0;
        items = items_of(start, end);
    }
    DEVICE void next(const LinearArguments &a, Wide (&to)[RT][2]) {
        int column = start + (item * LINEAR_WARPS + warp) * STEP;
        bool present = tile < tiles && column + 8 * (lane & 3) < end;
#pragma unroll
        for (int r = 0; r < RT; ++r)
#pragma unroll
            for (int half = 0; half < 2; ++half)
                to[r][half] = present ? load16_once(row[r][half] + column) : zero_wide();
        if (++item < items) return;
        if (end < a.k) {
            open_stretch(a, end);
            return;
        }
        tile += gridDim.x;
        open_stretch(a, 0);
        if (tile < tiles) open_tile(a);
    }
};

// Adds the warps' sums of one 16-row tile: thread's outputs q = threadIdx.x + 256 e, row q / 16, weight row q % 16.
template <int MT> DEVICE void add_warps(float *partial, const float (&sums)[MT][4], float (&out)[(MT + 1) / 2]) {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    __syncthreads();
    float *own = partial + warp * (8 * MT * PARTIAL_STRIDE);
#pragma unroll
    for (int mt = 0; mt < MT; ++mt)
#pragma unroll
        for (int i = 0; i < 4; ++i)
            own[(8 * mt + 2 * t + (i & 1)) * PARTIAL_STRIDE + g + 8 * (i >> 1)] = sums[mt][i];
    __syncthreads();
#pragma unroll
    for (int e = 0; e < (MT + 1) / 2; ++e) {
        int q = threadIdx.x + LINEAR_THREADS * e;
        out[e] = 0.0f;
        if (q < 128 * MT) {
#pragma unroll
            for (int w = 0; w < LINEAR_WARPS; ++w)
                out[e] += partial[(w * 8 * MT + q / 16) * PARTIAL_STRIDE + q % 16];
        }
    }
}

template <int MT, int RT> DEVICE void store_tile(const LinearArguments &a, float *partial, const float (&sums)[RT][MT][4],
                                                 int tile, int row0, int rows) {
    constexpr int OUTPUTS = (MT + 1) / 2;
    float gate[OUTPUTS];
#pragma unroll
    for (int r = 0; r < RT; ++r) {
        float value[OUTPUTS];
        add_warps<MT>(partial, sums[r], value);
        bool up = a.mode == 1 && r == 1;
        int column0 = a.mode == 1 ? tile * 16 : (tile * RT + r) * 16;
#pragma unroll
        for (int e = 0; e < OUTPUTS; ++e) {
            if (a.mode == 1 && r == 0) {
                gate[e] = value[e];
                continue;
            }
            int q = threadIdx.x + LINEAR_THREADS * e, m = q / 16, column = column0 + q % 16;
            if (m < rows && column < a.n) finish_output(a, row0 + m, column, up ? gate[e] : value[e], value[e]);
        }
    }
}

// The block's share of what is read next, once the last of its own weights are on the way: the memory goes on while blocks
// add up, store and wait for each other.
DEVICE void bring_next_closer(const LinearArguments &a) {
    if (a.ahead_bytes == 0 || threadIdx.x != 0) return;
    int blocks = gridDim.x * gridDim.y, block = blockIdx.y * gridDim.x + blockIdx.x;
    int share = (a.ahead_bytes / 16 + blocks - 1) / blocks * 16, start = block * share;
    int bytes = min(share, a.ahead_bytes - start);
    if (bytes > 0) bring_closer((const char *)a.ahead + start, bytes);
}

template <int MT, int RT, int DEPTH> DEVICE void skinny(const LinearArguments &a) {
    constexpr int M = 8 * MT;
    __shared__ float sums_of_squares[64];
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    int span = a.mode == 1 ? 16 : 16 * RT;
    Staged s;
    s.data = (T *)dynamic_shared();
    s.sums = sums_of_squares;
    s.stride = a.columns + 32;
    s.row0 = blockIdx.y * M;
    s.rows = min(M, a.rows - s.row0);
    s.parts = s.rows >= LINEAR_WARPS ? 1 : LINEAR_WARPS / s.rows;
    float *partial = (float *)(s.data + M * s.stride);
    bool whole = a.columns >= a.k;

    WeightStream<RT, DEPTH> stream;
    stream.warp = warp;
    stream.lane = lane;
    stream.tile = blockIdx.x;
    stream.tiles = (a.n + span - 1) / span;
    stream.open_tile(a);
    stream.open_stretch(a, 0);
    Wide w[DEPTH][RT][2];
    release_next();
#pragma unroll
    for (int d = 0; d < DEPTH; ++d) stream.next(a, w[d]);
    await_previous();
    if (a.norm && !whole) {
        measure_rows(a, s);
        __syncthreads();
    }
    bool staged = false;
    for (int tile = blockIdx.x; tile < stream.tiles; tile += gridDim.x) {
        float sums[RT][MT][4];
#pragma unroll
        for (int r = 0; r < RT; ++r)
#pragma unroll
            for (int mt = 0; mt < MT; ++mt)
#pragma unroll
                for (int i = 0; i < 4; ++i) sums[r][mt][i] = 0.0f;
        for (int start = 0; start < a.k; start += a.columns) {
            int end = min(a.k, start + a.columns);
            if (!staged) {
                __syncthreads();
                stage(a, s, start, end, whole);
                __syncthreads();
                staged = whole;
            }
            int items = WeightStream<RT, DEPTH>::items_of(start, end);
            for (int base = 0; base < items; base += DEPTH) {
#pragma unroll
                for (int d = 0; d < DEPTH; ++d) {
                    int column = ((base + d) * LINEAR_WARPS + warp) * STEP;
                    if (column < end - start) {
#pragma unroll
                        for (int mt = 0; mt < MT; ++mt) {
                            Wide x = zero_wide();
                            if (g + 8 * mt < s.rows) x = load16(s.data + (g + 8 * mt) * s.stride + column + 8 * t);
                            const unsigned first[2] = {x.word[0], x.word[1]}, second[2] = {x.word[2], x.word[3]};
#pragma unroll
                            for (int r = 0; r < RT; ++r) {
                                const Wide &top = w[d][r][0], &bottom = w[d][r][1];
                                const unsigned even[4] = {top.word[0], bottom.word[0], top.word[1], bottom.word[1]};
                                const unsigned odd[4] = {top.word[2], bottom.word[2], top.word[3], bottom.word[3]};
                                mma_m16n8k16<T>(sums[r][mt], even, first);
                                mma_m16n8k16<T>(sums[r][mt], odd, second);
                            }
                        }
                    }
                    stream.next(a, w[d]);
                }
            }
        }
        if (tile + gridDim.x >= stream.tiles) bring_next_closer(a);
        store_tile<MT, RT>(a, partial, sums, tile, s.row0, s.rows);
    }
}

#define SKINNY(name, MT, RT, DEPTH, BLOCKS)                                                         \
    extern "C" __global__ void __launch_bounds__(LINEAR_THREADS, BLOCKS)                            \
        name(const __grid_constant__ LinearArguments a) {                                           \
        skinny<MT, RT, DEPTH>(a);                                                                   \
    }
SKINNY(linear_skinny_m8_r1, 1, 1, 4, 2)
SKINNY(linear_skinny_m8_r2, 1, 2, 4, 2)
SKINNY(linear_skinny_m16_r1, 2, 1, 4, 2)
SKINNY(linear_skinny_m16_r2, 2, 2, 4, 2)
SKINNY(linear_skinny_m32_r1, 4, 1, 4, 2)
SKINNY(linear_skinny_m32_r2, 4, 2, 4, 1)
SKINNY(linear_skinny_m64_r1, 8, 1, 4, 1)
SKINNY(linear_skinny_m64_r2, 8, 2, 4, 1)

#endif

// Rows, columns and depth of the tile of linear_any.
#define ANY_M 16
#define ANY_N 64
#define ANY_K 32

DEVICE float scale_of_row(const LinearArguments &a, int row) {
    const T *source = row_of(a.x, row);
    float sum = 0.0f;
    for (int i = threadIdx.x & 31; i < a.k; i += 32) {
        float value = to_float(source[i]);
        sum += value * value;
    }
    return 1.0f / sqrtf(lanes_sum<32>(sum) / (float)a.k + a.eps);
}

DEVICE void any_tile(const LinearArguments &a, int row0, int column0) {
    __shared__ float x[ANY_K][ANY_M + 1];
    __shared__ float w[2][ANY_K][ANY_N + 1];
    __shared__ float scale[ANY_M];
    int tx = threadIdx.x % ANY_N, ty = threadIdx.x / ANY_N, warp = threadIdx.x >> 5;
    int products = a.mode == 1 ? 2 : 1;
    if (a.norm) {
        for (int m = warp; m < ANY_M; m += LINEAR_WARPS) {
            float value = row0 + m < a.rows ? scale_of_row(a, row0 + m) : 0.0f;
            if ((threadIdx.x & 31) == 0) scale[m] = value;
        }
        __syncthreads();
    }
    float sums[2][4] = {};
    for (int start = 0; start < a.k; start += ANY_K) {
        for (int i = threadIdx.x; i < ANY_M * ANY_K; i += LINEAR_THREADS) {
            int m = i / ANY_K, k = i % ANY_K;
            float value = 0.0f;
            if (row0 + m < a.rows && start + k < a.k) {
                value = to_float(row_of(a.x, row0 + m)[start + k]);
                if (a.norm) value = rounded(value * scale[m] * to_float(((const T *)a.norm)[start + k]));
            }
            x[k][m] = value;
        }
        for (int i = threadIdx.x; i < products * ANY_N * ANY_K; i += LINEAR_THREADS) {
            int p = i / (ANY_N * ANY_K), n = i / ANY_K % ANY_N, k = i % ANY_K;
            float value = 0.0f;
            if (column0 + n < a.n && start + k < a.k)
                value = to_float(((const T *)a.weight)[((int64)p * a.n + column0 + n) * a.k + start + k]);
            w[p][k][n] = value;
        }
        __syncthreads();
        for (int p = 0; p < products; ++p)
            for (int k = 0; k < ANY_K; ++k)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    float sum = fmaf(x[k][4 * ty + i], w[p][k][tx], p == 0 ? sums[0][i] : sums[1][i]);
                    if (p == 0)
                        sums[0][i] = sum;
                    else
                        sums[1][i] = sum;
                }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        int row = row0 + 4 * ty + i;
        if (row < a.rows && column0 + tx < a.n) finish_output(a, row, column0 + tx, sums[0][i], sums[1][i]);
    }
}

extern "C" __global__ void __launch_bounds__(LINEAR_THREADS) linear_any(const __grid_constant__ LinearArguments a) {
    release_next();
    await_previous();
    // More row tiles than a grid can have are walked over.
    for (int row0 = blockIdx.y * ANY_M; row0 < a.rows; row0 += gridDim.y * ANY_M) {
        any_tile(a, row0, blockIdx.x * ANY_N);
        __syncthreads();
    }
}
