// Products of x with weights in few bits: CodesArguments, DequantizeArguments. PHOTONC_SCHEME says how they are kept.
//
// codes_m{8,16}_r{1,2}: bf16 and f16, bound by the bandwidth of the codes; made as linear_skinny_* of skinny.cu is. A block
// owns 16 * r weight rows (r2 with SwiGLU: 16 gate rows and their 16 up rows), its warps share out k in steps of STEP. A
// lane copies its own pieces of codes and x to shared memory in the background, STAGES steps ahead, and turns codes into T
// on their way to the tensor cores, exactly; scales are factors of sums: of a row at the end, of 32 columns (int4) after
// their two products. No weight is ever rounded. Wants: k a multiple of 8, codes, scales and norm 16-byte aligned, rows of x
// likewise.
// codes_any: any type, size and alignment. dequantize: the weight itself, in T, for cuBLASLt.
#include "codes.cuh"
#include "few.cuh"
#include "general.cuh"

extern "C" __global__ void __launch_bounds__(LINEAR_THREADS) codes_any(const __grid_constant__ CodesArguments a) {
    release_next();
    await_previous();
    any_product(a.linear, Coded{(const unsigned char *)a.linear.weight, (const float *)a.scales, a.linear.k});
}

extern "C" __global__ void __launch_bounds__(LINEAR_THREADS) dequantize(const __grid_constant__ DequantizeArguments a) {
    release_next();
    await_previous();
    Coded weight = {(const unsigned char *)a.codes, (const float *)a.scales, a.k};
    int pieces = (a.k + 7) / 8;
    int64 all = (int64)a.rows * pieces;
    for (int64 i = (int64)blockIdx.x * LINEAR_THREADS + threadIdx.x; i < all; i += (int64)gridDim.x * LINEAR_THREADS) {
        int64 row = i / pieces;
        int column = (int)(i - row * pieces) * 8;
        const unsigned char *piece = weight.codes + row * row_bytes(a.k) + piece_of(column / 8);
        float scale = weight.scale(row, column);
        alignas(16) T values[8];
#pragma unroll
        for (int j = 0; j < 8; ++j) values[j] = element_of(code_of(piece, j), scale);
        T *out = (T *)a.out + row * a.k + column;
        if (a.k % 8 == 0) {
#pragma unroll
            for (int part = 0; part < 8 / PER_WIDE; ++part) store16(out + part * PER_WIDE, load16(values + part * PER_WIDE));
        } else {
#pragma unroll
            for (int j = 0; j < 8; ++j)
                if (column + j < a.k) out[j] = values[j];
        }
    }
}

#if PHOTONC_TYPE != 0
// Bytes of the norm's weights of a step.
#define NORM_PIECE (64 * UNITS)
// Bytes of the scales of 16 rows in a step.
#define SCALE_PIECE (GROUPED ? 16 * 4 * UNITS : 0)
// Weight row `within` of tile part r; rows past the end repeat the last one, and their products are not stored.
template <int RT> DEVICE int64 weight_row(const LinearArguments &a, int tile, int r, int within) {
    if (a.mode == 1) return (int64)min(tile * 16 + within, a.n - 1) + (int64)r * a.n;
    return min((tile * RT + r) * 16 + within, a.n - 1);
}

// What a lane copies ahead, and where to. A slot holds the pieces of one step: codes, x, norm, scales.
template <int MT, int RT> struct Ahead {
    static constexpr int X = 2 * RT * PIECE, NORM = X + MT * UNITS * PIECE, SCALES = NORM + NORM_PIECE;
    static constexpr int SLOT = SCALES + RT * SCALE_PIECE;
    const unsigned char *codes[RT][2];
    const float *scales[RT]; // of row lane % 16
    const T *x[MT];
    unsigned char *slots; // the warp's
    int open;             // the tile of `codes`

    DEVICE void open_tile(const CodesArguments &a, int tile) {
        const LinearArguments &l = a.linear;
        int lane = threadIdx.x & 31, g = lane >> 2;
#pragma unroll
        for (int r = 0; r < RT; ++r) {
#pragma unroll
            for (int half = 0; half < 2; ++half)
                codes[r][half] = (const unsigned char *)l.weight + weight_row<RT>(l, tile, r, g + 8 * half) * row_bytes(l.k) + 16 * (lane & 3);
            if (GROUPED) scales[r] = (const float *)a.scales + weight_row<RT>(l, tile, r, lane & 15) * row_scales(l.k);
        }
        open = tile;
    }
    DEVICE void open_rows(const LinearArguments &a, int row0, int rows) {
        int lane = threadIdx.x & 31, g = lane >> 2;
#pragma unroll
        for (int mt = 0; mt < MT; ++mt) x[mt] = row_of(a.x, row0 + min(g + 8 * mt, rows - 1)) + 8 * (lane & 3);
    }
    DEVICE void bring_codes(const CodesArguments &a, const Walk<STEP> &walk, int slot) {
        if (!walk.present()) return;
        if (walk.tile != open) open_tile(a, walk.tile);
        int lane = threadIdx.x & 31, stretch = walk.column / STEP;
        unsigned char *to = slots + slot * SLOT;
#pragma unroll
        for (int r = 0; r < RT; ++r) {
#pragma unroll
            for (int half = 0; half < 2; ++half)
                copy16_later(to + (2 * r + half) * PIECE + 16 * lane, codes[r][half] + (int64)stretch * STRETCH, true);
            if (GROUPED && lane < 16)
                copy16_later(to + SCALES + r * SCALE_PIECE + 16 * lane, scales[r] + (int64)stretch * UNITS, true);
        }
        if (a.linear.norm && lane < 4 * UNITS) {
            bool within = walk.column + 8 * lane < walk.k;
            copy16_later(to + NORM + 16 * lane, (const T *)a.linear.norm + (within ? walk.column + 8 * lane : 0), within);
        }
    }
    // Rows that are not there keep what the slot holds: their columns of the product are not stored.
    DEVICE void bring_x(const Walk<STEP> &walk, int slot, int rows) {
        if (!walk.present()) return;
        int lane = threadIdx.x & 31, g = lane >> 2;
        unsigned char *to = slots + slot * SLOT + X + 16 * lane;
#pragma unroll
        for (int u = 0; u < UNITS; ++u) {
            bool within = walk.column + 32 * u + 8 * (lane & 3) < walk.k;
            int column = within ? walk.column + 32 * u : 0;
#pragma unroll
            for (int mt = 0; mt < MT; ++mt)
                if (g + 8 * mt < rows) copy16_later(to + (mt * UNITS + u) * PIECE, x[mt] + column, within);
        }
    }
};

// The products of 32 columns: one piece of x, the eight weights of a lane of each half of each tile.
template <int MT, int RT>
DEVICE void multiply_unit(const Wide (&x)[MT], const unsigned (&w)[RT][2][4], float (&sums)[RT][MT][4]) {
#pragma unroll
    for (int mt = 0; mt < MT; ++mt) {
        const unsigned first[2] = {x[mt].word[0], x[mt].word[1]}, second[2] = {x[mt].word[2], x[mt].word[3]};
#pragma unroll
        for (int r = 0; r < RT; ++r) {
            const unsigned even[4] = {w[r][0][0], w[r][1][0], w[r][0][1], w[r][1][1]};
            const unsigned odd[4] = {w[r][0][2], w[r][1][2], w[r][0][3], w[r][1][3]};
            mma_m16n8k16<T>(sums[r][mt], even, first);
            mma_m16n8k16<T>(sums[r][mt], odd, second);
        }
    }
}

template <int MT, int RT> DEVICE void clear(float (&sums)[RT][MT][4]) {
#pragma unroll
    for (int r = 0; r < RT; ++r)
#pragma unroll
        for (int mt = 0; mt < MT; ++mt)
#pragma unroll
            for (int i = 0; i < 4; ++i) sums[r][mt][i] = 0.0f;
}

// sums += the group's, each weight row by its scale.
template <int MT, int RT>
DEVICE void add_group(float (&sums)[RT][MT][4], const float (&group)[RT][MT][4], const unsigned char *scales, int u) {
    int g = (threadIdx.x & 31) >> 2;
#pragma unroll
    for (int r = 0; r < RT; ++r) {
        const float *of = (const float *)(scales + r * SCALE_PIECE) + u;
        float top = of[UNITS * g], bottom = of[UNITS * (g + 8)];
#pragma unroll
        for (int mt = 0; mt < MT; ++mt)
#pragma unroll
            for (int i = 0; i < 4; ++i) sums[r][mt][i] += group[r][mt][i] * (i < 2 ? top : bottom);
    }
}

// One step's products of the slot that the lane filled itself.
template <int MT, int RT>
DEVICE void multiply_step(const LinearArguments &a, const unsigned char *slot, float (&sums)[RT][MT][4], float (&squares)[MT]) {
    using Slot = Ahead<MT, RT>;
    int lane = threadIdx.x & 31;
    Wide codes[RT][2];
#pragma unroll
    for (int r = 0; r < RT; ++r)
#pragma unroll
        for (int half = 0; half < 2; ++half) codes[r][half] = load16(slot + (2 * r + half) * PIECE + 16 * lane);
#pragma unroll
    for (int u = 0; u < UNITS; ++u) {
        Wide x[MT], norm = zero_wide();
        if (a.norm) norm = load16(slot + Slot::NORM + 64 * u + 16 * (lane & 3));
#pragma unroll
        for (int mt = 0; mt < MT; ++mt) {
            x[mt] = load16(slot + Slot::X + (mt * UNITS + u) * PIECE + 16 * lane);
            if (a.norm) x[mt] = normed(x[mt], norm, squares[mt]);
        }
        unsigned w[RT][2][4];
#pragma unroll
        for (int r = 0; r < RT; ++r)
#pragma unroll
            for (int half = 0; half < 2; ++half) expand(w[r][half], codes[r][half], u);
        if constexpr (GROUPED) {
            float group[RT][MT][4];
            clear<MT, RT>(group);
            multiply_unit<MT, RT>(x, w, group);
            add_group<MT, RT>(sums, group, slot + Slot::SCALES, u);
        } else {
            multiply_unit<MT, RT>(x, w, sums);
        }
    }
}

// The warps' sum of the thread's output: row threadIdx.x / 16, weight row threadIdx.x % 16.
template <int MT> DEVICE float add_warps(float *partial, const float (&sums)[MT][4]) {
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, g = lane >> 2, t = lane & 3;
    __syncthreads();
    float *own = partial + warp * (8 * MT * PARTIAL_STRIDE);
#pragma unroll
    for (int mt = 0; mt < MT; ++mt)
#pragma unroll
        for (int i = 0; i < 4; ++i) own[(8 * mt + 2 * t + (i & 1)) * PARTIAL_STRIDE + g + 8 * (i >> 1)] = sums[mt][i];
    __syncthreads();
    float sum = 0.0f;
    if (threadIdx.x < 128 * MT) {
#pragma unroll
        for (int w = 0; w < LINEAR_WARPS; ++w)
            sum += partial[(w * 8 * MT + threadIdx.x / 16) * PARTIAL_STRIDE + threadIdx.x % 16];
    }
    return sum;
}

// What the thread's outputs of a tile need besides the products.
template <int RT> struct Finish {
    T residual[RT];
    float scale[RT];

    DEVICE void load(const CodesArguments &a, int tile, int row0, int rows) {
        const LinearArguments &l = a.linear;
        int m = threadIdx.x / 16;
#pragma unroll
        for (int r = 0; r < RT; ++r) {
            int column = (tile * RT + r) * 16 + threadIdx.x % 16;
            residual[r] = m < rows && column < l.n && l.mode == 0 ? residual_of(l, row0 + m, column) : from_float<T>(0.0f);
            scale[r] = GROUPED ? 1.0f : ((const float *)a.scales)[weight_row<RT>(l, tile, r, threadIdx.x % 16)];
        }
    }
};

template <int MT, int RT>
DEVICE void store_tile(const LinearArguments &a, float *partial, const float *squares, const float (&sums)[RT][MT][4], int tile,
                       int row0, int rows, const Finish<RT> &finish) {
    int m = threadIdx.x / 16;
    bool mine = m < rows;
    float gate = 0.0f, norm = 1.0f;
#pragma unroll
    for (int r = 0; r < RT; ++r) {
        float value = add_warps<MT>(partial, sums[r]);
        if (r == 0 && a.norm && mine) norm = norm_factor<MT>(a, squares, m);
        value *= finish.scale[r] * norm;
        if (a.mode == 1 && r == 0) {
            gate = value;
            continue;
        }
        int column = (a.mode == 1 ? tile * 16 : (tile * RT + r) * 16) + threadIdx.x % 16;
        if (mine && column < a.n) finish_output(a, row0 + m, column, a.mode == 1 ? gate : value, value, finish.residual[r]);
    }
}

template <int MT, int RT, int STAGES> DEVICE void product(const CodesArguments &a) {
    constexpr int M = 8 * MT, SLOT = Ahead<MT, RT>::SLOT;
    const LinearArguments &l = a.linear;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, row0 = blockIdx.y * M, rows = min(M, l.rows - row0);
    int span = l.mode == 1 ? 16 : 16 * RT, first_column = warp * STEP;
    unsigned char *shared = dynamic_shared();
    float *partial = (float *)(shared + LINEAR_WARPS * STAGES * SLOT);
    float *all_squares = partial + LINEAR_WARPS * M * PARTIAL_STRIDE;

    Ahead<MT, RT> ahead;
    ahead.slots = shared + warp * STAGES * SLOT;
    ahead.open_tile(a, blockIdx.x);
    // A warp that k has no columns for has no steps.
    Walk<STEP> asked = {(int)blockIdx.x, (l.n + span - 1) / span, first_column, (int)gridDim.x, l.k};
    if (first_column >= l.k) asked.tile = asked.tiles;
    Walk<STEP> done = asked;
    release_next();
#pragma unroll
    for (int stage = 0; stage < STAGES; ++stage) {
        ahead.bring_codes(a, asked, stage);
        asked.next(first_column);
    }
    await_previous();
    ahead.open_rows(l, row0, rows);
    asked = done;
#pragma unroll
    for (int stage = 0; stage < STAGES; ++stage) {
        ahead.bring_x(asked, stage, rows);
        end_copy_group();
        asked.next(first_column);
    }
    float squares[MT] = {};
    int slot = 0;
    // Other lanes copied the weights of the norm and the scales of groups.
    bool shares = GROUPED || l.norm;
    for (int tile = blockIdx.x; tile < done.tiles; tile += gridDim.x) {
        float sums[RT][MT][4];
        clear<MT, RT>(sums);
        Finish<RT> finish;
        finish.load(a, tile, row0, rows);
        while (done.present() && done.tile == tile) {
            copies_left<STAGES - 1>();
            if (shares) __syncwarp();
            multiply_step<MT, RT>(l, ahead.slots + slot * SLOT, sums, squares);
            if (shares) __syncwarp();
            ahead.bring_codes(a, asked, slot);
            ahead.bring_x(asked, slot, rows);
            end_copy_group();
            asked.next(first_column);
            done.next(first_column);
            slot = slot + 1 == STAGES ? 0 : slot + 1;
        }
        if (l.norm && tile == (int)blockIdx.x) {
#pragma unroll
            for (int mt = 0; mt < MT; ++mt) {
                float sum = lanes_sum<4>(squares[mt]);
                if ((lane & 3) == 0) all_squares[warp * M + 8 * mt + (lane >> 2)] = sum;
            }
        }
        store_tile<MT, RT>(l, partial, all_squares, sums, tile, row0, rows, finish);
    }
}

#define CODES(name, MT, RT, STAGES, BLOCKS)                                                         \
    extern "C" __global__ void __launch_bounds__(LINEAR_THREADS, BLOCKS)                            \
        name(const __grid_constant__ CodesArguments a) {                                            \
        product<MT, RT, STAGES>(a);                                                                 \
    }
#if GROUPED
CODES(codes_m8_r1, 1, 1, 3, 2)
CODES(codes_m8_r2, 1, 2, 2, 2)
CODES(codes_m16_r1, 2, 1, 2, 2)
CODES(codes_m16_r2, 2, 2, 3, 1)
#else
CODES(codes_m8_r1, 1, 1, 5, 2)
CODES(codes_m8_r2, 1, 2, 3, 2)
CODES(codes_m16_r1, 2, 1, 3, 2)
CODES(codes_m16_r2, 2, 2, 2, 2)
#endif
#endif
