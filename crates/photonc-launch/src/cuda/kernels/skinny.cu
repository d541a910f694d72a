// Matrix products with at most PHOTONC_ROWS rows at once, bf16 and f16: LinearArguments.
//
// linear_skinny_m{8,16,32,64}_r{1,2}: bf16 and f16, bound by the bandwidth of the weights. A block owns 16 * r weight rows
// (r2 with SwiGLU: 16 gate rows and their 16 up rows) and walks over further ones by the size of the grid; its warps share
// out k in steps of 32 and add up through shared memory. The weights are the 16-row operand of the tensor cores: a lane's
// 16 bytes cover eight neighbouring k of one row, and those of x are the same k, so that one piece of each feeds two
// products. A lane copies its own pieces of weights and x to shared memory in the background, STAGES steps ahead, and
// nobody else reads them; the weights of the first steps are asked for before the previous launch has ended. The norm's
// scale is a factor of the whole sum, which its lanes find on the way. Wants: k a multiple of 8, weight and norm 16-byte
// aligned, rows of x likewise.
#include "few.cuh"

#if PHOTONC_TYPE == 0
#error "tensor cores take bf16 and f16"
#endif
#ifndef PHOTONC_ROWS
#error "PHOTONC_ROWS is the number of rows at once: 8, 16, 32 or 64"
#endif

// Columns of one tensor-core step, twice: what a 16-byte load of four lanes covers.
#define STEP 32
// Bytes of the norm's weights of a step.
#define NORM_PIECE 64

// What a lane copies ahead, and where to. A slot holds the pieces of one step: weights, x, norm.
template <int MT, int RT> struct Ahead {
    static constexpr int SLOT = (2 * RT + MT) * PIECE + NORM_PIECE;
    const T *weight[RT][2];
    const T *x[MT];
    unsigned char *slots; // the warp's
    int weight_tile;      // of which `weight` has the rows

    DEVICE void open_tile(const LinearArguments &a, int tile) {
        int lane = threadIdx.x & 31, g = lane >> 2, span = a.mode == 1 ? 16 : 16 * RT;
#pragma unroll
        for (int r = 0; r < RT; ++r)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                // Rows past the end repeat the last one; their products are not stored.
                int within = tile * span + (a.mode == 1 ? 0 : 16 * r) + g + 8 * half;
                int64 at = (int64)min(within, a.n - 1) + (a.mode == 1 ? (int64)r * a.n : 0);
                weight[r][half] = (const T *)a.weight + at * a.k + 8 * (lane & 3);
            }
        weight_tile = tile;
    }
    DEVICE void open_rows(const LinearArguments &a, int row0, int rows) {
        int lane = threadIdx.x & 31, g = lane >> 2;
#pragma unroll
        for (int mt = 0; mt < MT; ++mt)
            x[mt] = row_of(a.x, row0 + min(g + 8 * mt, rows - 1)) + 8 * (lane & 3);
    }
    DEVICE void bring_weights(const LinearArguments &a, const Walk<STEP> &walk, int slot) {
        if (!walk.present()) return;
        if (walk.tile != weight_tile) open_tile(a, walk.tile);
        int lane = threadIdx.x & 31;
        bool within = walk.column + 8 * (lane & 3) < a.k;
        int column = within ? walk.column : 0;
        unsigned char *to = slots + slot * SLOT + 16 * lane;
#pragma unroll
        for (int r = 0; r < RT; ++r)
#pragma unroll
            for (int half = 0; half < 2; ++half) copy16_later(to + (2 * r + half) * PIECE, weight[r][half] + column, within);
        if (a.norm && lane < 4)
            copy16_later(to + (2 * RT + MT) * PIECE, (const T *)a.norm + column + 8 * lane, within);
    }
    // Rows that are not there keep what the slot holds: their columns of the product are not stored.
    DEVICE void bring_x(const LinearArguments &a, const Walk<STEP> &walk, int slot, int rows) {
        if (!walk.present()) return;
        int lane = threadIdx.x & 31, g = lane >> 2;
        bool within = walk.column + 8 * (lane & 3) < a.k;
        int column = within ? walk.column : 0;
        unsigned char *to = slots + slot * SLOT + 16 * lane;
#pragma unroll
        for (int mt = 0; mt < MT; ++mt)
            if (g + 8 * mt < rows) copy16_later(to + (2 * RT + mt) * PIECE, x[mt] + column, within);
    }
};

// One step's products of the slot that the lane filled itself.
template <int MT, int RT>
DEVICE void multiply_step(const LinearArguments &a, const unsigned char *slot, float (&sums)[RT][MT][4], float (&squares)[MT]) {
    int lane = threadIdx.x & 31;
    const unsigned char *own = slot + 16 * lane;
    Wide w[RT][2], norm = zero_wide();
#pragma unroll
    for (int r = 0; r < RT; ++r)
#pragma unroll
        for (int half = 0; half < 2; ++half) w[r][half] = load16(own + (2 * r + half) * PIECE);
    if (a.norm) norm = load16(slot + (2 * RT + MT) * PIECE + 16 * (lane & 3));
#pragma unroll
    for (int mt = 0; mt < MT; ++mt) {
        Wide x = load16(own + (2 * RT + mt) * PIECE);
        if (a.norm) x = normed(x, norm, squares[mt]);
        const unsigned first[2] = {x.word[0], x.word[1]}, second[2] = {x.word[2], x.word[3]};
#pragma unroll
        for (int r = 0; r < RT; ++r) {
            const Wide &top = w[r][0], &bottom = w[r][1];
            const unsigned even[4] = {top.word[0], bottom.word[0], top.word[1], bottom.word[1]};
            const unsigned odd[4] = {top.word[2], bottom.word[2], top.word[3], bottom.word[3]};
            mma_m16n8k16<T>(sums[r][mt], even, first);
            mma_m16n8k16<T>(sums[r][mt], odd, second);
        }
    }
}

// Rows of x whose partial sums are in shared memory at once, and the outputs of a thread then: q = threadIdx.x + 256 e,
// row q / 16, weight row q % 16.
template <int MT> struct Group {
    static constexpr int TILES = MT < 4 ? MT : 4;
    static constexpr int OUTPUTS = (TILES + 1) / 2;
};

// Adds the warps' sums of rows 8 * first .. of one 16-row tile.
template <int MT>
DEVICE void add_warps(float *partial, const float (&sums)[MT][4], int first, float (&out)[Group<MT>::OUTPUTS]) {
    constexpr int TILES = Group<MT>::TILES;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    __syncthreads();
    float *own = partial + warp * (8 * TILES * PARTIAL_STRIDE);
#pragma unroll
    for (int mt = 0; mt < MT; ++mt)
        if (mt >= first && mt < first + TILES) {
#pragma unroll
            for (int i = 0; i < 4; ++i)
                own[(8 * (mt - first) + 2 * t + (i & 1)) * PARTIAL_STRIDE + g + 8 * (i >> 1)] = sums[mt][i];
        }
    __syncthreads();
#pragma unroll
    for (int e = 0; e < Group<MT>::OUTPUTS; ++e) {
        int q = threadIdx.x + LINEAR_THREADS * e;
        out[e] = 0.0f;
        if (q < 128 * TILES) {
#pragma unroll
            for (int w = 0; w < LINEAR_WARPS; ++w)
                out[e] += partial[(w * 8 * TILES + q / 16) * PARTIAL_STRIDE + q % 16];
        }
    }
}

// What is added to the outputs of the thread in tile after tile of 16 weight rows, where it has one output of each.
template <int MT, int RT>
DEVICE void load_residuals(T (&residuals)[RT], const LinearArguments &a, int tile, int row0, int rows) {
    static_assert(Group<MT>::OUTPUTS == 1 && Group<MT>::TILES == MT, "a thread has one output");
    int m = threadIdx.x / 16;
#pragma unroll
    for (int r = 0; r < RT; ++r) {
        int column = (tile * RT + r) * 16 + threadIdx.x % 16;
        residuals[r] = m < rows && column < a.n ? residual_of(a, row0 + m, column) : from_float<T>(0.0f);
    }
}

// `residuals`: of few rows, those of load_residuals.
template <int MT, int RT>
DEVICE void store_tile(const LinearArguments &a, float *partial, const float *squares, const float (&sums)[RT][MT][4], int tile,
                       int row0, int rows, const T (&residuals)[RT]) {
    constexpr int OUTPUTS = Group<MT>::OUTPUTS;
#pragma unroll
    for (int first = 0; first < MT; first += Group<MT>::TILES) {
        float gate[OUTPUTS], scale[OUTPUTS];
#pragma unroll
        for (int r = 0; r < RT; ++r) {
            float value[OUTPUTS];
            add_warps<MT>(partial, sums[r], first, value);
            bool up = a.mode == 1 && r == 1;
            int column0 = a.mode == 1 ? tile * 16 : (tile * RT + r) * 16;
#pragma unroll
            for (int e = 0; e < OUTPUTS; ++e) {
                int q = threadIdx.x + LINEAR_THREADS * e, m = 8 * first + q / 16, column = column0 + q % 16;
                bool mine = q < 128 * Group<MT>::TILES && m < rows;
                if (r == 0) scale[e] = a.norm && mine ? norm_factor<MT>(a, squares, m) : 1.0f;
                value[e] *= scale[e];
                if (a.mode == 1 && r == 0) {
                    gate[e] = value[e];
                    continue;
                }
                if (mine && column < a.n) {
                    T residual = Group<MT>::OUTPUTS == 1 ? residuals[r] : residual_of(a, row0 + m, column);
                    finish_output(a, row0 + m, column, up ? gate[e] : value[e], value[e], residual);
                }
            }
        }
    }
}

template <int MT, int RT, int STAGES> DEVICE void skinny(const LinearArguments &a) {
    constexpr int M = 8 * MT;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, row0 = blockIdx.y * M, rows = min(M, a.rows - row0);
    int span = a.mode == 1 ? 16 : 16 * RT, first_column = warp * STEP;
    unsigned char *shared = dynamic_shared();
    float *partial = (float *)(shared + LINEAR_WARPS * STAGES * Ahead<MT, RT>::SLOT);
    float *all_squares = partial + LINEAR_WARPS * 8 * Group<MT>::TILES * PARTIAL_STRIDE;

    Ahead<MT, RT> ahead;
    ahead.slots = shared + warp * STAGES * Ahead<MT, RT>::SLOT;
    ahead.open_tile(a, blockIdx.x);
    // A warp that k has no columns for has no steps.
    Walk<STEP> asked = {(int)blockIdx.x, (a.n + span - 1) / span, first_column, (int)gridDim.x, a.k};
    if (first_column >= a.k) asked.tile = asked.tiles;
    Walk<STEP> done = asked;
    release_next();
#pragma unroll
    for (int stage = 0; stage < STAGES; ++stage) {
        ahead.bring_weights(a, asked, stage);
        asked.next(first_column);
    }
    ahead.open_rows(a, row0, rows);
    asked = done;
    await_previous();
#pragma unroll
    for (int stage = 0; stage < STAGES; ++stage) {
        ahead.bring_x(a, asked, stage, rows);
        end_copy_group();
        asked.next(first_column);
    }
    float squares[MT];
#pragma unroll
    for (int mt = 0; mt < MT; ++mt) squares[mt] = 0.0f;
    int slot = 0;
    for (int tile = blockIdx.x; tile < done.tiles; tile += gridDim.x) {
        float sums[RT][MT][4];
#pragma unroll
        for (int r = 0; r < RT; ++r)
#pragma unroll
            for (int mt = 0; mt < MT; ++mt)
#pragma unroll
                for (int i = 0; i < 4; ++i) sums[r][mt][i] = 0.0f;
        // On their way before the products, which need not wait for them.
        T residuals[RT] = {};
        if constexpr (Group<MT>::OUTPUTS == 1) load_residuals<MT, RT>(residuals, a, tile, row0, rows);
        while (done.present() && done.tile == tile) {
            copies_left<STAGES - 1>();
            // The norm's weights were copied by other lanes.
            if (a.norm) __syncwarp();
            multiply_step<MT, RT>(a, ahead.slots + slot * Ahead<MT, RT>::SLOT, sums, squares);
            if (a.norm) __syncwarp();
            ahead.bring_weights(a, asked, slot);
            ahead.bring_x(a, asked, slot, rows);
            end_copy_group();
            asked.next(first_column);
            done.next(first_column);
            slot = slot + 1 == STAGES ? 0 : slot + 1;
        }
        if (a.norm && tile == (int)blockIdx.x) {
#pragma unroll
            for (int mt = 0; mt < MT; ++mt) {
                float sum = lanes_sum<4>(squares[mt]);
                if ((lane & 3) == 0) all_squares[warp * M + 8 * mt + (lane >> 2)] = sum;
            }
        }
        store_tile<MT, RT>(a, partial, all_squares, sums, tile, row0, rows, residuals);
    }
}

#define SKINNY(name, MT, RT, STAGES, BLOCKS)                                                        \
    extern "C" __global__ void __launch_bounds__(LINEAR_THREADS, BLOCKS)                            \
        name(const __grid_constant__ LinearArguments a) {                                           \
        skinny<MT, RT, STAGES>(a);                                                                  \
    }
#if PHOTONC_ROWS == 8
SKINNY(linear_skinny_m8_r1, 1, 1, 7, 2)
SKINNY(linear_skinny_m8_r2, 1, 2, 4, 2)
#elif PHOTONC_ROWS == 16
SKINNY(linear_skinny_m16_r1, 2, 1, 5, 2)
SKINNY(linear_skinny_m16_r2, 2, 2, 3, 2)
#elif PHOTONC_ROWS == 32
SKINNY(linear_skinny_m32_r1, 4, 1, 3, 2)
SKINNY(linear_skinny_m32_r2, 4, 2, 2, 2)
#else
SKINNY(linear_skinny_m64_r1, 8, 1, 2, 2)
SKINNY(linear_skinny_m64_r2, 8, 2, 4, 1)
#endif
