// Rows by a block of ROWS_THREADS threads: neighbouring elements at once, sums over the block, the RMS norm of a row.
#pragma once
#include "device.cuh"

#ifndef ROWS_THREADS
#define ROWS_THREADS 256
#endif

DEVICE bool wide_address(const void *base) { return ((uint64)base & 15) == 0; }
DEVICE bool wide_rows(const Rows &rows) {
    return wide_address(rows.base) && rows.outer % PER_WIDE == 0 && rows.inner % PER_WIDE == 0;
}

// COUNT neighbouring elements as floats: one, or as many as a Wide has.
template <int COUNT> DEVICE void load_elements(float (&out)[COUNT], const T *from) {
    if constexpr (COUNT == 1)
        out[0] = to_float(*from);
    else
        unpack(out, load16(from), T());
}
template <int COUNT> DEVICE void store_elements(T *to, const float (&in)[COUNT]) {
    if constexpr (COUNT == 1)
        *to = from_float<T>(in[0]);
    else
        store16(to, packed(in, T()));
}
template <int COUNT> DEVICE void copy_elements(T *to, const T *from, bool present) {
    if constexpr (COUNT == 1)
        *to = present ? *from : from_float<T>(0.0f);
    else
        store16(to, present ? load16(from) : zero_wide());
}

// The block's sum, known to every thread.
DEVICE float block_sum(float value) {
    __shared__ float sums[ROWS_THREADS / 32];
    value = lanes_sum<32>(value);
    if ((threadIdx.x & 31) == 0) sums[threadIdx.x >> 5] = value;
    __syncthreads();
    float total = 0.0f;
    for (int i = 0; i < ROWS_THREADS / 32; ++i) total += sums[i];
    __syncthreads();
    return total;
}

// The norm is that of the sum as T holds it, so that it does not depend on whether the sum is stored.
template <int COUNT> DEVICE void norm_row(const NormArguments &a, int r) {
    const T *x = row_of(a.x, r);
    const T *residual = a.residual.base ? row_of(a.residual, r) : nullptr;
    T *sum = a.sum.base ? row_of(a.sum, r) : nullptr;
    T *out = row_of(a.out, r);
    float squares = 0.0f;
#pragma unroll 2
    for (int i = threadIdx.x * COUNT; i < a.width; i += ROWS_THREADS * COUNT) {
        float values[COUNT], added[COUNT];
        load_elements(values, x + i);
        if (residual) load_elements(added, residual + i);
#pragma unroll
        for (int j = 0; j < COUNT; ++j) {
            if (residual) values[j] = rounded(values[j] + added[j]);
            squares += values[j] * values[j];
        }
        if (sum) store_elements(sum + i, values);
    }
    float mean = block_sum(squares) / (float)a.width;
    float scale = 1.0f / sqrtf(mean + a.eps);
    // Each thread reads again what it read or stored itself, so out, sum, residual and x may share memory.
#pragma unroll 2
    for (int i = threadIdx.x * COUNT; i < a.width; i += ROWS_THREADS * COUNT) {
        float values[COUNT], added[COUNT], weight[COUNT];
        load_elements(values, sum ? sum + i : x + i);
        if (residual && !sum) load_elements(added, residual + i);
        load_elements(weight, (const T *)a.weight + i);
#pragma unroll
        for (int j = 0; j < COUNT; ++j) {
            if (residual && !sum) values[j] = rounded(values[j] + added[j]);
            values[j] = values[j] * scale * weight[j];
        }
        store_elements(out + i, values);
    }
}

DEVICE bool wide_norm(const NormArguments &a) {
    return wide_rows(a.x) && wide_rows(a.out) && wide_address(a.weight) && a.width % PER_WIDE == 0 &&
           (!a.residual.base || wide_rows(a.residual)) && (!a.sum.base || wide_rows(a.sum));
}
