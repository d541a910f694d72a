// What the kernels of few rows share that copy ahead what each lane multiplies: how a warp walks, the norm that is folded in.
#pragma once
#include "linear.cuh"

#if PHOTONC_TYPE != 0
// Bytes of a piece: 16 of each lane.
#define PIECE 512
// Floats from one row of partial sums to the next: 16 and a gap that keeps the stores off each other's banks.
#define PARTIAL_STRIDE 20

// The steps of a warp: tiles of weight rows, and in each every eighth stretch of COLUMNS.
template <int COLUMNS> struct Walk {
    int tile, tiles, column, stride, k;

    DEVICE bool present() const { return tile < tiles; }
    DEVICE void next(int first_column) {
        column += LINEAR_WARPS * COLUMNS;
        if (column >= k) {
            column = first_column;
            tile += stride;
        }
    }
};

// x * norm of a lane's eight columns; adds the squares of x.
DEVICE Wide normed(const Wide &x, const Wide &norm, float &squares) {
    float values[8], weights[8];
    unpack(values, x, T());
    unpack(weights, norm, T());
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        squares += values[i] * values[i];
        values[i] *= weights[i] * NORM_SHIFT;
    }
    return packed(values, T());
}

// The norm's factor of a row, from the warps' sums of squares.
template <int MT> DEVICE float norm_factor(const LinearArguments &a, const float *squares, int row) {
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < LINEAR_WARPS; ++w) sum += squares[w * 8 * MT + row];
    return fast_rsqrt(sum / (float)a.k + a.eps) * (1.0f / NORM_SHIFT);
}
#endif
