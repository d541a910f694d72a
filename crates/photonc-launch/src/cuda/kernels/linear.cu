// Matrix products without tensor cores: LinearArguments. Few rows that can have it better go to skinny.cu, many to cuBLASLt.
//
// linear_any: any size, type and alignment.
// linear_rows_m{1,2,4,8}: few rows of f32, bound by the bandwidth of the weights. A warp has two weight rows, with SwiGLU a gate
// and its up, and reads both from end to end for every row of x. Wants k a multiple of 4, rows of x, weight and norm 16-byte
// aligned.
#include "general.cuh"

// Weights in the type of the model.
struct Stored {
    const T *weight;
    int k;

    DEVICE float at(int64 row, int column) const { return to_float(weight[row * k + column]); }
};

extern "C" __global__ void __launch_bounds__(LINEAR_THREADS) linear_any(const __grid_constant__ LinearArguments a) {
    release_next();
    await_previous();
    any_product(a, Stored{(const T *)a.weight, a.k});
}

#if PHOTONC_TYPE == 0
// Pieces of each weight row that a lane asks for at once.
#define ROWS_DEPTH 4

template <int ROWS> struct RowSums {
    float product[2][ROWS];
    float squares[ROWS];
};

// What `COUNT` pieces of 128 columns from the lane's `column` on add; pieces past the end add nothing.
template <int ROWS, int COUNT>
DEVICE void add_pieces(RowSums<ROWS> &sums, const LinearArguments &a, const T *const (&weight)[2], const T *const (&x)[ROWS], int column) {
    Wide w[COUNT][2], norm[COUNT];
#pragma unroll
    for (int c = 0; c < COUNT; ++c) {
        int at = column + 128 * c;
#pragma unroll
        for (int p = 0; p < 2; ++p) w[c][p] = at < a.k ? load16_once(weight[p] + at) : zero_wide();
        norm[c] = a.norm && at < a.k ? load16((const T *)a.norm + at) : zero_wide();
    }
#pragma unroll
    for (int c = 0; c < COUNT; ++c) {
        int at = column + 128 * c;
        if (at >= a.k) continue;
        float weights[2][4], scale[4];
        unpack(weights[0], w[c][0], T());
        unpack(weights[1], w[c][1], T());
        unpack(scale, norm[c], T());
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            float values[4];
            unpack(values, load16(x[r] + at), T());
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if (a.norm) {
                    sums.squares[r] += values[i] * values[i];
                    values[i] *= scale[i];
                }
                sums.product[0][r] = fmaf(values[i], weights[0][i], sums.product[0][r]);
                sums.product[1][r] = fmaf(values[i], weights[1][i], sums.product[1][r]);
            }
        }
    }
}

template <int ROWS> DEVICE void linear_rows(const LinearArguments &a) {
    release_next();
    int lane = threadIdx.x & 31, row0 = blockIdx.y * ROWS, rows = min(ROWS, a.rows - row0);
    int64 pair = (int64)blockIdx.x * LINEAR_WARPS + (threadIdx.x >> 5);
    int64 first = a.mode == 1 ? pair : 2 * pair;
    bool within = first < a.n;
    // Rows past the end repeat the last one and are not stored.
    int64 second = a.mode == 1 ? first + a.n : min(first + 1, (int64)a.n - 1);
    const T *weight[2] = {(const T *)a.weight + first * a.k, (const T *)a.weight + second * a.k};
    const T *x[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) x[r] = row_of(a.x, row0 + min(r, rows - 1));
    await_previous();
    if (!within) return;
    RowSums<ROWS> sums = {};
    for (int column = 4 * lane; column < a.k; column += 128 * ROWS_DEPTH)
        add_pieces<ROWS, ROWS_DEPTH>(sums, a, weight, x, column);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        float one = lanes_sum<32>(sums.product[0][r]), other = lanes_sum<32>(sums.product[1][r]);
        if (a.norm) {
            float scale = 1.0f / sqrtf(lanes_sum<32>(sums.squares[r]) / (float)a.k + a.eps);
            one *= scale;
            other *= scale;
        }
        if (r >= rows) continue;
        if (lane == 0) finish_output(a, row0 + r, (int)first, one, other);
        if (lane == 1 && a.mode == 0 && second > first) finish_output(a, row0 + r, (int)second, other, other);
    }
}

#define LINEAR_ROWS(name, ROWS)                                                                              \
    extern "C" __global__ void __launch_bounds__(LINEAR_THREADS) name(const __grid_constant__ LinearArguments a) { \
        linear_rows<ROWS>(a);                                                                                \
    }
LINEAR_ROWS(linear_rows_m1, 1)
LINEAR_ROWS(linear_rows_m2, 2)
LINEAR_ROWS(linear_rows_m4, 4)
LINEAR_ROWS(linear_rows_m8, 8)
#endif
