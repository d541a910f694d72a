// Products of any size, type and alignment, without tensor cores, whatever their weights are kept in.
#pragma once
#include "linear.cuh"

// Rows, columns and depth of the tile of a block.
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
    return 1.0f / (sqrtf(lanes_sum<32>(sum) / (float)a.k + a.eps) * NORM_SHIFT);
}

// `weights.at(row, k)` is an element of the weight.
template <class Weights>
DEVICE void any_tile(const LinearArguments &a, const Weights &weights, int row0, int column0) {
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
                if (a.norm) value = rounded(value * to_float(((const T *)a.norm)[start + k]) * NORM_SHIFT);
            }
            x[k][m] = value;
        }
        for (int i = threadIdx.x; i < products * ANY_N * ANY_K; i += LINEAR_THREADS) {
            int p = i / (ANY_N * ANY_K), n = i / ANY_K % ANY_N, k = i % ANY_K;
            float value = 0.0f;
            if (column0 + n < a.n && start + k < a.k) value = weights.at((int64)p * a.n + column0 + n, start + k);
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
        float factor = a.norm ? scale[4 * ty + i] : 1.0f;
        if (row < a.rows && column0 + tx < a.n)
            finish_output(a, row, column0 + tx, sums[0][i] * factor, sums[1][i] * factor);
    }
}

// All tiles of a block: more row tiles than a grid can have are walked over.
template <class Weights> DEVICE void any_product(const LinearArguments &a, const Weights &weights) {
    for (int row0 = blockIdx.y * ANY_M; row0 < a.rows; row0 += gridDim.y * ANY_M) {
        any_tile(a, weights, row0, blockIdx.x * ANY_N);
        __syncthreads();
    }
}
