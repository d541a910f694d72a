// Steps that depend on each other as one launch, for few rows in short types: ChainArguments. All blocks run at once, one on
// each multiprocessor, share out every step and meet before the next.
//
// chain_m{8,16}: products of at most that many rows, norms, windows of at most CHAIN_KEYS keys, caches. Only products have
// many bytes to read, and what they read does not depend on the steps before: each warp copies its pieces of the weights of
// all products to come, STAGES ahead, through norms, attention and barriers. A piece is 16 rows of weights by 32 columns; a
// block's pieces go to its warps in turn, whichever tile and product they belong to, and the tile's sums are added up through
// shared memory. x comes from the second-level cache. Products as in skinny.cu: the norm's scale is a factor of the sum.
#define CHAIN_THREADS 256
#define CHAIN_WARPS (CHAIN_THREADS / 32)
#define ATTEND_THREADS CHAIN_THREADS
#define ROWS_THREADS CHAIN_THREADS
#include "attention.cuh"
#include "norm.cuh"
#include "streamed.cuh"

// Keys of a window.
#define CHAIN_KEYS 8
// Pieces that a warp multiplies at a time, and stretches of x that it takes at a time.
#define BATCH 2

// What copying ahead needs to know of a step.
struct Product {
    const T *weight; // null: no product
    int n;
    int k;
    int tiles;     // of 16 weight rows
    int stretches; // of 32 columns
    int first;     // tile of this block
    int gated;     // n rows of gates, then n rows of ups: two pieces of each stretch
};

// The first of the stretches of a tile that the warp has; `turn` counts the stretches of the block's tiles before it.
DEVICE int first_stretch(int turn) { return ((int)(threadIdx.x >> 5) - turn) & (CHAIN_WARPS - 1); }

// The pieces that a warp has still to copy, of all products in order.
struct Feed {
    const Product *products;
    int steps;
    int step, tile, turn; // of the next tile to open
    // The open tile: rows of this lane, elements from a gate to its up, pieces left, columns of this lane.
    const T *top, *bottom;
    int64 up;
    int left, column, k;

    DEVICE void begin(const Product *all, int count) {
        products = all;
        steps = count;
        step = turn = left = 0;
        tile = all[0].first;
    }

    // The next tile that the warp has pieces of; nothing is left after the last one.
    DEVICE void open() {
        while (step < steps) {
            const Product &p = products[step];
            if (p.weight && tile < p.tiles) {
                int lane = threadIdx.x & 31, stretch = first_stretch(turn), row = tile * 16 + (lane >> 2);
                tile += gridDim.x;
                turn += p.stretches;
                if (stretch >= p.stretches) continue;
                // Rows past the end repeat the last one; their products are not stored.
                top = once(p.weight + (int64)min(row, p.n - 1) * p.k);
                bottom = once(p.weight + (int64)min(row + 8, p.n - 1) * p.k);
                up = p.gated ? (int64)p.n * p.k : 0;
                left = (p.stretches - stretch + CHAIN_WARPS - 1) / CHAIN_WARPS * (p.gated ? 2 : 1);
                column = stretch * STEP + 8 * (lane & 3);
                k = p.k;
                return;
            }
            ++step;
            if (step < steps) tile = products[step].first;
        }
    }

    DEVICE void bring(unsigned char *to) {
        if (left == 0) open();
        if (left > 0) {
            // Gates and ups of a stretch in turn.
            bool within = column < k, second = up && (left & 1);
            int64 at = (within ? column : 0) + (second ? up : 0);
            copy16_later(to, top + at, within);
            copy16_later(to + PIECE, bottom + at, within);
            if (second || !up) column += CHAIN_WARPS * STEP;
            --left;
        }
        end_copy_group();
    }
};

// Word by word: a choice between places would keep both in memory.
DEVICE Wide chosen(bool first, const Wide &a, const Wide &b) {
    Wide wide;
#pragma unroll
    for (int i = 0; i < 4; ++i) wide.word[i] = first ? a.word[i] : b.word[i];
    return wide;
}

// x and the norm's weights of some of a warp's next stretches.
template <int MT> struct Taken {
    Wide x[BATCH][MT];
    Wide norm[BATCH];
};

template <int MT, int STAGES> struct Chain {
    static constexpr int M = 8 * MT;
    // Threads that add up an output.
    static constexpr int PARTS = CHAIN_THREADS / (16 * M);
    // From one warp's partial sums to the next: the gap keeps the parts' reads off each other's banks.
    static constexpr int WARP_STRIDE = M * PARTIAL_STRIDE + 32 / PARTS;
    static constexpr int PARTIALS = CHAIN_WARPS * WARP_STRIDE;
    static constexpr int SQUARES = CHAIN_WARPS * M;

    Feed feed;
    unsigned char *slots; // of the warp and lane
    float *partial;       // twice [warps][WARP_STRIDE]
    float *squares;       // twice [warps][M]
    int slot, turn, side;

    DEVICE void begin(const Product *products, int steps) {
        feed.begin(products, steps);
        slot = turn = side = 0;
#pragma unroll 1
        for (int stage = 0; stage < STAGES; ++stage) feed.bring(slots + stage * 2 * PIECE);
    }

    DEVICE int slot_after(int pieces) const { return slot + pieces < STAGES ? slot + pieces : slot + pieces - STAGES; }

    // Multiplies the oldest `count` pieces, whose places new ones take. Of two neighbours one goes to each of the sums; x of
    // piece i is x[i], or x[i / 2] where they are gates and ups.
    DEVICE void multiply_batch(float (&sums)[2][MT][4], const Wide (&x)[BATCH][MT], int count, bool gated) {
        copies_left<STAGES - BATCH>();
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            const unsigned char *from = slots + slot_after(i) * 2 * PIECE;
            Wide top = i < count ? load16(from) : zero_wide(), bottom = i < count ? load16(from + PIECE) : zero_wide();
#pragma unroll
            for (int mt = 0; mt < MT; ++mt) multiply(sums[i & 1][mt], top, bottom, chosen(gated, x[i / 2][mt], x[i][mt]));
        }
#pragma unroll 1
        for (int i = 0; i < count; ++i) {
            feed.bring(slots + slot * 2 * PIECE);
            slot = slot_after(1);
        }
    }

    DEVICE void take(Taken<MT> &taken, const T *const (&x)[MT], int rows, const T *norm, int stretch, int k, int per_batch) {
        int lane = threadIdx.x & 31;
#pragma unroll
        for (int d = 0; d < BATCH; ++d) {
            int column = (stretch + d * CHAIN_WARPS) * STEP;
            bool within = d < per_batch && column + 8 * (lane & 3) < k;
#pragma unroll
            for (int mt = 0; mt < MT; ++mt)
                taken.x[d][mt] = within && (lane >> 2) + 8 * mt < rows ? load16(x[mt] + column) : zero_wide();
            if (norm) taken.norm[d] = within ? load16(norm + column) : zero_wide();
        }
    }

    // Adds up the warps' sums of a tile: the results of thread PARTS * q are of row q / 16 of x and row q % 16 of the weights.
    // The two sides take turns, so that one barrier is enough.
    DEVICE float add_warps(const float (&sums)[MT][4]) {
        int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
        int q = threadIdx.x / PARTS, part = threadIdx.x % PARTS;
        float *all = partial + side * PARTIALS, *own = all + warp * WARP_STRIDE;
        side ^= 1;
#pragma unroll
        for (int mt = 0; mt < MT; ++mt)
#pragma unroll
            for (int i = 0; i < 4; ++i) own[(8 * mt + 2 * t + (i & 1)) * PARTIAL_STRIDE + g + 8 * (i >> 1)] = sums[mt][i];
        __syncthreads();
        float value = 0.0f;
#pragma unroll
        for (int w = 0; w < CHAIN_WARPS; w += PARTS) value += all[(w + part) * WARP_STRIDE + q / 16 * PARTIAL_STRIDE + q % 16];
        return lanes_sum<PARTS>(value);
    }

    // The norm's factor of a row, known to the threads that add up its outputs.
    DEVICE float scale_of(const float *all, int row, const LinearArguments &a) {
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < CHAIN_WARPS; w += PARTS) sum += all[(w + threadIdx.x % PARTS) * M + row];
        return fast_rsqrt(lanes_sum<PARTS>(sum) / (float)a.k + a.eps) * (1.0f / NORM_SHIFT);
    }

    DEVICE void finish_tile(const LinearArguments &a, const Product &p, int tile, float (&sums)[2][MT][4],
                            const float (&own_squares)[MT], float added) {
        int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
        int q = threadIdx.x / PARTS, m = q / 16, column = tile * 16 + q % 16;
        bool mine = threadIdx.x % PARTS == 0 && m < a.rows && column < a.n;
        float *all_squares = squares + side * SQUARES;
        if (a.norm)
#pragma unroll
            for (int mt = 0; mt < MT; ++mt) {
                float sum = lanes_sum<4>(own_squares[mt]);
                if ((lane & 3) == 0) all_squares[warp * M + 8 * mt + (lane >> 2)] = sum;
            }
        if (!p.gated)
#pragma unroll
            for (int mt = 0; mt < MT; ++mt)
#pragma unroll
                for (int i = 0; i < 4; ++i) sums[0][mt][i] += sums[1][mt][i];
        float value = add_warps(sums[0]), scale = a.norm ? scale_of(all_squares, m, a) : 1.0f;
        value *= scale;
        if (p.gated) value = silu(value) * (add_warps(sums[1]) * scale);
        if (mine) store_output(a, m, column, value + added);
    }

    // What is added to the output of this thread, asked for before its sum.
    DEVICE float added_to(const LinearArguments &a, int tile) {
        int q = threadIdx.x / PARTS, m = q / 16, column = tile * 16 + q % 16;
        float added = 0.0f;
        if (threadIdx.x % PARTS == 0 && m < a.rows && column < a.n) {
            if (a.bias) added = to_float(((const T *)a.bias)[column]);
            if (a.residual.base) added += to_float(row_of(a.residual, m)[column]);
        }
        return added;
    }

    DEVICE void product(const LinearArguments &a, const Product &p) {
        // A gate and its up are two pieces of one stretch.
        int lane = threadIdx.x & 31, tile = p.first, per_batch = p.gated ? BATCH / 2 : BATCH;
        if (tile >= p.tiles) return;
        const T *x[MT];
#pragma unroll
        for (int mt = 0; mt < MT; ++mt) x[mt] = once(row_of(a.x, min((lane >> 2) + 8 * mt, a.rows - 1)) + 8 * (lane & 3));
        const T *norm = a.norm ? (const T *)a.norm + 8 * (lane & 3) : nullptr;
        int stretch = first_stretch(turn);
        Taken<MT> now, next;
        take(now, x, a.rows, norm, stretch, p.k, per_batch);
        float added = added_to(a, tile), sums[2][MT][4] = {}, own_squares[MT] = {};
        while (true) {
            int count = (p.stretches - stretch + CHAIN_WARPS - 1) / CHAIN_WARPS;
            bool last = count <= per_batch;
            int next_tile = tile, next_stretch = stretch + per_batch * CHAIN_WARPS;
            if (last) {
                turn += p.stretches;
                next_tile += gridDim.x;
                next_stretch = first_stretch(turn);
            }
            if (next_tile < p.tiles) take(next, x, a.rows, norm, next_stretch, p.k, per_batch);
            if (norm)
#pragma unroll
                for (int d = 0; d < BATCH; ++d)
#pragma unroll
                    for (int mt = 0; mt < MT; ++mt) now.x[d][mt] = normed(now.x[d][mt], now.norm[d], own_squares[mt]);
            multiply_batch(sums, now.x, max(0, min(count, per_batch)) * (p.gated ? 2 : 1), p.gated);
            if (last) {
                finish_tile(a, p, tile, sums, own_squares, added);
                if (next_tile >= p.tiles) return;
                added = added_to(a, next_tile);
#pragma unroll
                for (int mt = 0; mt < MT; ++mt) {
                    own_squares[mt] = 0.0f;
#pragma unroll
                    for (int i = 0; i < 4; ++i) sums[0][mt][i] = sums[1][mt][i] = 0.0f;
                }
            }
            now = next;
            tile = next_tile;
            stretch = next_stretch;
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

template <int MT, int STAGES> DEVICE void chain(const ChainArguments &a) {
    typedef Chain<MT, STAGES> Own;
    constexpr int WORDS = (int)sizeof(AttendArguments) / 8;
    unsigned char *shared = dynamic_shared();
    float *partial = (float *)(shared + CHAIN_WARPS * STAGES * 2 * PIECE);
    float *squares = partial + 2 * Own::PARTIALS;
    Product *products = (Product *)(squares + 2 * Own::SQUARES);
    uint64 *arguments = (uint64 *)(products + CHAIN_STEPS);

    for (int s = threadIdx.x; s < a.steps; s += CHAIN_THREADS) {
        Product p = {};
        if (a.step[s].kind == CHAIN_LINEAR) {
            const LinearArguments &l = *(const LinearArguments *)(a.data + a.step[s].at / 8);
            p = Product{(const T *)l.weight, l.n, l.k, (l.n + 15) / 16, (l.k + STEP - 1) / STEP,
                        ((int)blockIdx.x - a.step[s].first + (int)gridDim.x) % (int)gridDim.x, l.mode == 1};
        }
        products[s] = p;
    }
    __syncthreads();
    Own own;
    own.slots = shared + (threadIdx.x >> 5) * STAGES * 2 * PIECE + 16 * (threadIdx.x & 31);
    own.partial = partial;
    own.squares = squares;
    own.begin(products, a.steps);
    await_previous();
    for (int s = 0; s < a.steps; ++s) {
        // The arguments of this step take the place of those before the last barrier.
        uint64 *staged = arguments + (s & 1) * WORDS;
        for (int i = threadIdx.x; i < WORDS && a.step[s].at / 8 + i < CHAIN_BYTES / 8; i += CHAIN_THREADS)
            staged[i] = a.data[a.step[s].at / 8 + i];
        if (s > 0 && threadIdx.x == 0) wait_for_count(a.barrier, (uint64)s * gridDim.x);
        __syncthreads();
        if (s + 1 == a.steps) release_next();
        int kind = a.step[s].kind;
        if (kind == CHAIN_LINEAR) {
            own.product(*(const LinearArguments *)staged, products[s]);
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

#define CHAIN(name, MT, STAGES)                                                                               \
    extern "C" __global__ void __launch_bounds__(CHAIN_THREADS, 1) name(const __grid_constant__ ChainArguments a) { \
        chain<MT, STAGES>(a);                                                                                 \
    }
CHAIN(chain_m8, 1, 22)
CHAIN(chain_m16, 2, 20)
