// Steps that depend on each other as one launch, for few rows in short types: ChainArguments. All blocks run at once, one on
// each multiprocessor, share out every step and meet before the next.
//
// chain_m{8,16}: products of at most that many rows, norms, windows of at most CHAIN_KEYS keys, caches. Only products have
// many bytes to read, and what they read does not depend on the steps before: each warp copies its pieces of the weights of
// all products to come, STAGES ahead, through norms, attention and barriers. A piece is 16 rows of weights by 32 columns; a
// block's pieces go to its warps in turn, whichever tile and product they belong to, and the tile's sums are added up through
// shared memory. x comes from the second-level cache. Products as in skinny.cu: the norm's scale is a factor of the sum.
#include "attention.cuh"
#include "norm.cuh"
#include "streamed.cuh"

// Keys of a window.
#define CHAIN_KEYS 8

// What copying ahead needs to know of a step.
struct Product {
    const T *weight; // null: no product
    int n;
    int k;
    int tiles;     // of 16 weight rows
    int stretches; // of 32 columns
    int first;     // tile of this block
    int gated;     // n rows of gates, n rows of ups
};

// Where a warp stands among its pieces.
struct Place {
    int step;
    int tile;
    int stretch;
    int up; // the piece of the ups
    int turn; // stretches of the block's tiles before this one: they go to the warps in turn

    DEVICE int first_stretch() const { return ((int)(threadIdx.x >> 5) - turn) & (LINEAR_WARPS - 1); }
    // Goes on to a piece that there is; `step` is `steps` where none is left.
    DEVICE void settle(const Product *products, int steps) {
        while (step < steps) {
            const Product &p = products[step];
            if (p.weight && tile < p.tiles) {
                if (stretch < p.stretches) return;
                turn += p.stretches;
                tile += gridDim.x;
            } else {
                ++step;
                if (step < steps) tile = products[step].first;
            }
            stretch = first_stretch();
        }
    }
};

// x and the norm's weights of some of a warp's next stretches.
template <int MT, int DEPTH> struct Taken {
    Wide x[DEPTH][MT];
    Wide norm[DEPTH];
};

template <int MT, int STAGES, int DEPTH> struct Chain {
    static constexpr int M = 8 * MT;
    static constexpr int PARTIALS = LINEAR_WARPS * M * PARTIAL_STRIDE;

    const Product *products;
    int steps;
    unsigned char *slots; // of the warp and lane
    float *partial;       // twice [warps][M][PARTIAL_STRIDE]
    float *squares;       // twice [warps][M]
    Place asked;
    int slot, turn, side;

    DEVICE void bring(int to_slot) {
        if (asked.step < steps) {
            const Product &p = products[asked.step];
            int lane = threadIdx.x & 31, column = asked.stretch * STEP + 8 * (lane & 3), row = asked.tile * 16 + (lane >> 2);
            bool within = column < p.k;
            const T *from = p.weight + (within ? column : 0) + (asked.up ? (int64)p.n * p.k : 0);
            unsigned char *to = slots + to_slot * 2 * PIECE;
            // Rows past the end repeat the last one; their products are not stored.
            copy16_later(to, from + (int64)min(row, p.n - 1) * p.k, within);
            copy16_later(to + PIECE, from + (int64)min(row + 8, p.n - 1) * p.k, within);
            asked.up = p.gated && !asked.up;
            if (!asked.up) {
                asked.stretch += LINEAR_WARPS;
                asked.settle(products, steps);
            }
        }
        end_copy_group();
    }

    DEVICE void begin() {
        asked = Place{0, products[0].first, 0, 0, 0};
        asked.stretch = asked.first_stretch();
        asked.settle(products, steps);
        slot = turn = side = 0;
#pragma unroll
        for (int stage = 0; stage < STAGES; ++stage) bring(stage);
    }

    // The oldest piece, whose place the next one takes.
    DEVICE void next_piece(Wide &top, Wide &bottom) {
        copies_left<STAGES - 1>();
        top = load16(slots + slot * 2 * PIECE);
        bottom = load16(slots + slot * 2 * PIECE + PIECE);
    }
    DEVICE void replace_piece() {
        bring(slot);
        slot = slot + 1 == STAGES ? 0 : slot + 1;
    }

    DEVICE void take(Taken<MT, DEPTH> &taken, const T *const (&x)[MT], const bool (&present)[MT], const T *norm, int stretch,
                     int k) {
        int lane = threadIdx.x & 31;
#pragma unroll
        for (int d = 0; d < DEPTH; ++d) {
            int column = (stretch + d * LINEAR_WARPS) * STEP;
            bool within = column + 8 * (lane & 3) < k;
#pragma unroll
            for (int mt = 0; mt < MT; ++mt) taken.x[d][mt] = within && present[mt] ? load16(x[mt] + column) : zero_wide();
            taken.norm[d] = within && norm ? load16(norm + column) : zero_wide();
        }
    }

    // Adds up the warps' sums of a tile: the result of thread q is of row q / 16 of x and row q % 16 of the weights. The two
    // sides take turns, so that one barrier is enough.
    DEVICE float add_warps(const float (&sums)[MT][4]) {
        int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3, q = threadIdx.x;
        float *all = partial + side * PARTIALS, *own = all + warp * M * PARTIAL_STRIDE;
        side ^= 1;
#pragma unroll
        for (int mt = 0; mt < MT; ++mt)
#pragma unroll
            for (int i = 0; i < 4; ++i) own[(8 * mt + 2 * t + (i & 1)) * PARTIAL_STRIDE + g + 8 * (i >> 1)] = sums[mt][i];
        __syncthreads();
        float value = 0.0f;
        if (q < 128 * MT) {
#pragma unroll
            for (int w = 0; w < LINEAR_WARPS; ++w) value += all[(w * M + q / 16) * PARTIAL_STRIDE + q % 16];
        }
        return value;
    }

    DEVICE void product(const LinearArguments &a, const Product &p) {
        int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, m = threadIdx.x / 16;
        const T *x[MT];
        bool present[MT];
#pragma unroll
        for (int mt = 0; mt < MT; ++mt) {
            int row = (lane >> 2) + 8 * mt;
            present[mt] = row < a.rows;
            x[mt] = once(row_of(a.x, min(row, a.rows - 1)) + 8 * (lane & 3));
        }
        const T *norm = a.norm ? (const T *)a.norm + 8 * (lane & 3) : nullptr;
        for (int tile = p.first; tile < p.tiles; tile += gridDim.x) {
            int column = tile * 16 + threadIdx.x % 16;
            bool mine = threadIdx.x < 128 * MT && m < a.rows && column < a.n;
            // Asked for before the sums that it is added to.
            float added = 0.0f;
            if (mine && a.bias) added = to_float(((const T *)a.bias)[column]);
            if (mine && a.residual.base) added += to_float(row_of(a.residual, m)[column]);
            float sums[2][MT][4] = {}, own_squares[MT] = {};
            int stretch = (warp - turn) & (LINEAR_WARPS - 1);
            turn += p.stretches;
            Taken<MT, DEPTH> now, next;
            take(now, x, present, norm, stretch, p.k);
            while (stretch < p.stretches) {
                take(next, x, present, norm, stretch + DEPTH * LINEAR_WARPS, p.k);
#pragma unroll
                for (int d = 0; d < DEPTH; ++d)
                    if (stretch + d * LINEAR_WARPS < p.stretches) {
                        if (norm)
#pragma unroll
                            for (int mt = 0; mt < MT; ++mt) now.x[d][mt] = normed(now.x[d][mt], now.norm[d], own_squares[mt]);
                        Wide top, bottom;
                        next_piece(top, bottom);
#pragma unroll
                        for (int mt = 0; mt < MT; ++mt) multiply(sums[0][mt], top, bottom, now.x[d][mt]);
                        replace_piece();
                        if (p.gated) {
                            next_piece(top, bottom);
#pragma unroll
                            for (int mt = 0; mt < MT; ++mt) multiply(sums[1][mt], top, bottom, now.x[d][mt]);
                            replace_piece();
                        }
                    }
                now = next;
                stretch += DEPTH * LINEAR_WARPS;
            }
            float *all_squares = squares + side * LINEAR_WARPS * M;
            if (norm)
#pragma unroll
                for (int mt = 0; mt < MT; ++mt) {
                    float sum = lanes_sum<4>(own_squares[mt]);
                    if ((lane & 3) == 0) all_squares[warp * M + 8 * mt + (lane >> 2)] = sum;
                }
            float value = add_warps(sums[0]), scale = 1.0f;
            if (norm && mine) {
                float sum = 0.0f;
#pragma unroll
                for (int w = 0; w < LINEAR_WARPS; ++w) sum += all_squares[w * M + m];
                scale = fast_rsqrt(sum / (float)a.k + a.eps) * (1.0f / NORM_SHIFT);
            }
            value *= scale;
            if (p.gated) value = silu(value) * (add_warps(sums[1]) * scale);
            if (mine) store_output(a, m, column, value + added);
        }
    }
};

DEVICE void chain_window(const AttendArguments &a) {
    int64 units = (int64)a.rows * a.kv_heads;
    // Neighbours go to different multiprocessors; a warp whose first lanes have nothing to do has nothing to do.
    for (int64 base = blockIdx.x; base < units; base += (int64)gridDim.x * (ATTEND_THREADS / LANES)) {
        int64 of_warp = base + (int64)(threadIdx.x / 32 * (32 / LANES)) * gridDim.x;
        if (of_warp < units) attend_window<CHAIN_KEYS>(a, base + (int64)(threadIdx.x / LANES) * gridDim.x);
    }
}

template <int MT, int STAGES, int DEPTH> DEVICE void chain(const ChainArguments &a) {
    typedef Chain<MT, STAGES, DEPTH> Own;
    constexpr int WORDS = (int)sizeof(AttendArguments) / 8;
    unsigned char *shared = dynamic_shared();
    float *partial = (float *)(shared + LINEAR_WARPS * STAGES * 2 * PIECE);
    float *squares = partial + 2 * Own::PARTIALS;
    Product *products = (Product *)(squares + 2 * LINEAR_WARPS * Own::M);
    uint64 *arguments = (uint64 *)(products + CHAIN_STEPS);

    for (int s = threadIdx.x; s < a.steps; s += LINEAR_THREADS) {
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
    own.products = products;
    own.steps = a.steps;
    own.slots = shared + (threadIdx.x >> 5) * STAGES * 2 * PIECE + 16 * (threadIdx.x & 31);
    own.partial = partial;
    own.squares = squares;
    own.begin();
    await_previous();
    for (int s = 0; s < a.steps; ++s) {
        // The arguments of this step take the place of those before the last barrier.
        uint64 *staged = arguments + (s & 1) * WORDS;
        for (int i = threadIdx.x; i < WORDS && a.step[s].at / 8 + i < CHAIN_BYTES / 8; i += LINEAR_THREADS)
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

#define CHAIN(name, MT, STAGES, DEPTH, BLOCKS)                                                                  \
    extern "C" __global__ void __launch_bounds__(LINEAR_THREADS, BLOCKS) name(const __grid_constant__ ChainArguments a) { \
        chain<MT, STAGES, DEPTH>(a);                                                                            \
    }
CHAIN(chain_m8, 1, 11, 4, 2)
CHAIN(chain_m16, 2, 10, 2, 2)
CHAIN(chain_m8_alone, 1, 22, 4, 1)
CHAIN(chain_m16_alone, 2, 20, 4, 1)
