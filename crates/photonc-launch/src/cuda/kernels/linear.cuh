// What every kernel of LinearArguments does with a result.
#pragma once
#include "device.cuh"

#define LINEAR_THREADS 256
#define LINEAR_WARPS 8

// x * norm in f16 is kept this much smaller, so that it does not overflow.
constexpr float NORM_SHIFT = PHOTONC_TYPE == 2 ? 0.0625f : 1.0f;

// What is added to one output.
DEVICE T residual_of(const LinearArguments &a, int row, int column) {
    return a.residual.base ? row_of(a.residual, row)[column] : from_float<T>(0.0f);
}

// act, bias and residual of one output, and its store. `second` is the up product of SwiGLU.
DEVICE void finish_output(const LinearArguments &a, int row, int column, float value, float second, T residual) {
    if (a.mode == 1) value = silu(value) * second;
    if (a.bias) value += to_float(((const T *)a.bias)[column]);
    value += to_float(residual);
    if (a.wide)
        ((float *)a.out.base)[row_offset(a.out, row) + column] = value;
    else
        row_of(a.out, row)[column] = from_float<T>(value);
}
DEVICE void finish_output(const LinearArguments &a, int row, int column, float value, float second) {
    finish_output(a, row, column, value, second, residual_of(a, row, column));
}
