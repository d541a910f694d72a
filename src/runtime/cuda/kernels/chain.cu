// Steps that depend on each other as one launch, for few rows in short types: ChainArguments. All blocks run at once, one on
// each multiprocessor, share out every step and meet before the next.
//
// chain_m8: products of at most eight rows, norms, windows of at most CHAIN_KEYS keys, caches. Only products have many bytes
// to read, and what they read does not depend on the steps before: a ring in shared memory takes in the weights of all
// products to come, through norms, attention and barriers. A stage of the ring is 16 rows of weights by STAGE_COLUMNS
// columns, copied row by row, two rows by each warp, which then share out its columns. Before a product a block brings all of x to
// shared memory, times the norm's weights; as in skinny.cu the norm's scale is a factor of the sum. Wants: k a multiple of
// STEP, weights, norms and rows of x 16-byte aligned.
#define CHAIN_THREADS 256
#define CHAIN_WARPS (CHAIN_THREADS / 32)
#define ATTEND_THREADS CHAIN_THREADS
#define ROWS_THREADS CHAIN_THREADS
#include "norm.cuh"
#include "streamed.cuh"
#include "window.cuh"

// Keys of a window.
#define CHAIN_KEYS 8
// Rows of x.
#define CHAIN_ROWS 8
#define TILE 16
#define WARP_ROWS (TILE / CHAIN_WARPS)
#ifndef STAGE_COLUMNS
#define STAGE_COLUMNS 512
#endif
// Half a line more than a row: two neighbours lie in different banks.
#define STAGE_STRIDE (STAGE_COLUMNS * 2 + 64)
#define STAGE_BYTES (TILE * STAGE_STRIDE)
// From a piece of a warp to its next, in bytes.
#define WARP_STRIDE (CHAIN_WARPS * STEP * 2)
#define WARP_PIECES (STAGE_COLUMNS * 2 / WARP_STRIDE)
// Threads that add up an output, and floats from one warp's partial sums to the next: the gap keeps their reads off each
// other's banks.
#define PARTS (CHAIN_THREADS / (TILE * CHAIN_ROWS))
#define PARTIAL_FLOATS (CHAIN_ROWS * PARTIAL_STRIDE + 32 / PARTS)

// What copying ahead needs to know of a step.
struct Product {
    const T *weight; // null: no product
    int n;
    int k;
    int tiles; // of TILE weight rows
    int first; // tile of this block
    int parts; // 2: n rows of gates, then n rows of ups
};

// Places in a block's shared memory.
struct Places {
    unsigned char *slots;
    unsigned char *x;
    float *partial; // twice [warps][PARTIAL_FLOATS]
    float *squares; // [warps][CHAIN_ROWS]
    Product *products;
    uint64 *arguments;
    uint64 *full;  // a phase of each slot: its weights have come
    uint64 *empty; // every warp has used them

    DEVICE Places(unsigned char *shared, const ChainArguments &a) {
        slots = shared;
        x = slots + a.stages * STAGE_BYTES;
        partial = (float *)(x + a.x_bytes);
        squares = partial + 2 * CHAIN_WARPS * PARTIAL_FLOATS;
        products = (Product *)(squares + CHAIN_WARPS * CHAIN_ROWS);
        arguments = (uint64 *)(products + CHAIN_STEPS);
        full = arguments + 2 * sizeof(AttendArguments) / 8;
        empty = full + a.stages;
    }
};

// Bytes from one row of x in shared memory to the next: two neighbours lie in different banks.
DEVICE int x_stride(int k) { return (2 * k + 127) / 128 * 128 + 64; }

// The stages to copy, of all products in order; each warp has WARP_ROWS rows of each.
struct Feed {
    const Product *products;
    int steps;
    int step, tile, part, column; // of the next stage
    int k;
    const T *row; // of the lanes that copy

    DEVICE void begin(const Product *all, int count) {
        products = all;
        steps = count;
        step = part = column = 0;
        tile = all[0].first;
        open();
    }

    DEVICE int own_row() const { return (threadIdx.x >> 5) * WARP_ROWS + threadIdx.x % WARP_ROWS; }

    // Goes on to a tile that there is.
    DEVICE void open() {
        for (; step < steps; ++step, tile = step < steps ? products[step].first : 0) {
            const Product &p = products[step];
            if (p.weight && tile < p.tiles) {
                // Rows past the end repeat the last one; their products are not stored.
                k = p.k;
                row = once(p.weight + (int64)min(tile * TILE + own_row(), p.n - 1) * k);
                return;
            }
        }
    }

    DEVICE void bring(unsigned char *slot, uint64 *full) {
        if (step == steps) return;
        int columns = min(STAGE_COLUMNS, k - column);
        if (threadIdx.x == 0) arrive_and_expect(full, TILE * columns * 2);
        if (threadIdx.x % 32 < WARP_ROWS) copy_bulk(slot + own_row() * STAGE_STRIDE, row + column, columns * 2, full);
        column += STAGE_COLUMNS;
        if (column < k) return;
        column = 0;
        if (++part < products[step].parts) {
            row += (int64)products[step].n * k;
        } else {
            part = 0;
            tile += gridDim.x;
            open();
        }
    }
};

struct Chain {
    Places places;
    Feed feed;
    int stages;
    int slot;       // that is used next
    unsigned round; // how often all slots have been used
    bool used;      // the slot before has been used and not filled again
    int side;       // of the partial sums

    DEVICE Chain(const Places &own, const ChainArguments &a) : places(own), stages(a.stages) {
        slot = side = 0;
        round = 0;
        used = false;
        feed.begin(places.products, a.steps);
        for (int i = 0; i < stages; ++i) feed.bring(places.slots + i * STAGE_BYTES, places.full + i);
    }

    // Fills the slot before the current one as soon as all warps have used it.
    DEVICE void fill() {
        if (used) {
            int before = slot == 0 ? stages - 1 : slot - 1;
            await_phase(places.empty + before, (slot == 0 ? round - 1 : round) & 1);
            feed.bring(places.slots + before * STAGE_BYTES, places.full + before);
        }
        used = true;
    }

    // Products of the next tile of weight rows with x; `x` is the lane's place in its row.
    DEVICE void multiply_tile(float (&sums)[4], const unsigned char *x, int k) {
        int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
        const unsigned char *own = places.slots + (lane >> 2) * STAGE_STRIDE + warp * (STEP * 2) + 16 * (lane & 3);
        float more[4] = {};
        for (int column = 0; column < k; column += STAGE_COLUMNS) {
            const unsigned char *w = own + slot * STAGE_BYTES;
            int columns = k - column - warp * STEP;
            await_phase(places.full + slot, round & 1);
#pragma unroll
            for (int i = 0; i < WARP_PIECES; ++i)
                if (i * (WARP_STRIDE / 2) < columns)
                    multiply(i & 1 ? more : sums, load16(w + i * WARP_STRIDE), load16(w + 8 * STAGE_STRIDE + i * WARP_STRIDE),
                             load16(x + i * WARP_STRIDE));
            x += STAGE_COLUMNS * 2;
            __syncwarp();
            if (lane == 0) arrive(places.empty + slot);
            fill();
            if (++slot == stages) {
                slot = 0;
                ++round;
            }
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[i] += more[i];
    }

    // Two rows of x and two stretches of each at a time.
    DEVICE void bring_x(const LinearArguments &a) {
        constexpr int STRETCH = CHAIN_THREADS * PER_WIDE;
        int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, stride = x_stride(a.k);
        for (int m = 0; m < a.rows; m += 2) {
            float squares[2] = {};
            for (int first = threadIdx.x * PER_WIDE; first < a.k; first += 2 * STRETCH) {
                Wide x[2][2], norm[2];
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    int at = first + i * STRETCH;
                    if (at < a.k) {
#pragma unroll
                        for (int r = 0; r < 2; ++r)
                            if (m + r < a.rows) x[r][i] = load16(row_of(a.x, m + r) + at);
                        if (a.norm) norm[i] = load16((const T *)a.norm + at);
                    }
                }
#pragma unroll
                for (int i = 0; i < 2; ++i)
#pragma unroll
                    for (int r = 0; r < 2; ++r) {
                        int at = first + i * STRETCH;
                        if (at < a.k && m + r < a.rows)
                            store16(places.x + (m + r) * stride + at * 2, a.norm ? normed(x[r][i], norm[i], squares[r]) : x[r][i]);
                    }
            }
            if (a.norm)
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    float sum = lanes_sum<32>(squares[r]);
                    if (lane == 0 && m + r < a.rows) places.squares[warp * CHAIN_ROWS + m + r] = sum;
                }
        }
        __syncthreads();
    }

    // Adds up the warps' sums of a tile: the results of thread PARTS * q are of row q / TILE of x and row q % TILE of the
    // weights. The two sides take turns, so that one barrier is enough.
    DEVICE float add_warps(const float (&sums)[4]) {
        int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
        int q = threadIdx.x / PARTS, part = threadIdx.x % PARTS;
        float *all = places.partial + side * CHAIN_WARPS * PARTIAL_FLOATS, *own = all + warp * PARTIAL_FLOATS;
        side ^= 1;
#pragma unroll
        for (int i = 0; i < 4; ++i) own[(2 * t + (i & 1)) * PARTIAL_STRIDE + g + 8 * (i >> 1)] = sums[i];
        __syncthreads();
        float value = 0.0f;
#pragma unroll
        for (int w = 0; w < CHAIN_WARPS; w += PARTS)
            value += all[(w + part) * PARTIAL_FLOATS + q / TILE * PARTIAL_STRIDE + q % TILE];
        return lanes_sum<PARTS>(value);
    }

    DEVICE float scale_of(int row, const LinearArguments &a) {
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < CHAIN_WARPS; ++w) sum += places.squares[w * CHAIN_ROWS + row];
        return fast_rsqrt(sum / (float)a.k + a.eps) * (1.0f / NORM_SHIFT);
    }

    DEVICE void product(const LinearArguments &a, const Product &p) {
        if (p.first >= p.tiles) return;
        int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, m = threadIdx.x / PARTS / TILE;
        bool storing = threadIdx.x % PARTS == 0 && m < a.rows;
        bring_x(a);
        const unsigned char *x = places.x + min(lane >> 2, a.rows - 1) * x_stride(p.k) + warp * (STEP * 2) + 16 * (lane & 3);
        float scale = a.norm ? scale_of(min(m, a.rows - 1), a) : 1.0f;
        for (int tile = p.first; tile < p.tiles; tile += gridDim.x) {
            int column = tile * TILE + threadIdx.x / PARTS % TILE;
            bool mine = storing && column < p.n;
            // Asked for before the sum.
            float added = mine && a.bias ? to_float(((const T *)a.bias)[column]) : 0.0f;
            if (mine && a.residual.base) added += to_float(row_of(a.residual, m)[column]);
            float sums[4] = {}, ups[4] = {};
            multiply_tile(sums, x, p.k);
            if (p.parts == 2) multiply_tile(ups, x, p.k);
            float value = add_warps(sums) * scale;
            if (p.parts == 2) value = silu(value) * (add_warps(ups) * scale);
            if (mine) store_output(a, m, column, value + added);
        }
    }
};

DEVICE void chain_window(const AttendArguments &a) {
    int units = a.rows * a.kv_heads;
    // Neighbours go to different multiprocessors; a warp whose first lanes have nothing to do has nothing to do.
    for (int base = blockIdx.x; base < units; base += gridDim.x * (CHAIN_THREADS / LANES)) {
        int of_warp = base + (int)(threadIdx.x / 32 * (32 / LANES) * gridDim.x);
        if (of_warp < units) attend_window<CHAIN_KEYS>(a, base + (int)(threadIdx.x / LANES * gridDim.x));
    }
}

DEVICE void prepare(const Places &places, const ChainArguments &a) {
    for (int s = threadIdx.x; s < a.steps; s += CHAIN_THREADS) {
        Product p = {};
        if (a.step[s].kind == CHAIN_LINEAR) {
            const LinearArguments &l = *(const LinearArguments *)(a.data + a.step[s].at / 8);
            int first = ((int)blockIdx.x - a.step[s].first + (int)gridDim.x) % (int)gridDim.x;
            p = Product{(const T *)l.weight, l.n, l.k, (l.n + TILE - 1) / TILE, first, l.mode == 1 ? 2 : 1};
        }
        places.products[s] = p;
    }
    for (int i = threadIdx.x; i < a.stages; i += CHAIN_THREADS) {
        begin_phases(places.full + i, 1);
        begin_phases(places.empty + i, CHAIN_WARPS);
    }
    phases_begun();
    __syncthreads();
}

extern "C" __global__ void __launch_bounds__(CHAIN_THREADS, 1) chain_m8(const __grid_constant__ ChainArguments a) {
    constexpr int WORDS = (int)sizeof(AttendArguments) / 8;
    Places places(dynamic_shared(), a);
    prepare(places, a);
    Chain chain(places, a);
    await_previous();
    for (int s = 0; s < a.steps; ++s) {
        // The arguments of this step take the place of those before the last barrier.
        uint64 *staged = places.arguments + (s & 1) * WORDS;
        for (int i = threadIdx.x; i < WORDS && a.step[s].at / 8 + i < CHAIN_BYTES / 8; i += CHAIN_THREADS)
            staged[i] = a.data[a.step[s].at / 8 + i];
        if (s > 0 && threadIdx.x == 0) wait_for_count(a.barrier, (uint64)s * gridDim.x);
        __syncthreads();
        int kind = a.step[s].kind;
        if (kind == CHAIN_LINEAR) {
            chain.product(*(const LinearArguments *)staged, places.products[s]);
        } else if (kind == CHAIN_NORM) {
            const NormArguments &n = *(const NormArguments *)staged;
            for (int r = blockIdx.x; r < n.rows; r += gridDim.x) {
                if (wide_norm(n))
                    norm_row<PER_WIDE>(n, r);
                else
                    norm_row<1>(n, r);
            }
        } else {
            const AttendArguments &t = *(const AttendArguments *)staged;
            if (kind == CHAIN_WINDOW)
                chain_window(t);
            else
                for (int pair = blockIdx.x; pair < t.rows * t.kv_heads; pair += gridDim.x) attend_pair<1>(t, pair);
        }
        __syncthreads();
        if (s + 1 < a.steps && threadIdx.x == 0) count_in(a.barrier);
    }
    // The last to leave has everything as it was.
    if (threadIdx.x == 0 && atomicAdd(a.barrier + 1, (uint64)1) == gridDim.x - 1) a.barrier[0] = a.barrier[1] = 0;
}
