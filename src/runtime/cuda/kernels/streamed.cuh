// What kernels share that stream weights through shared memory into tensor cores: the shape of a step, the operand that is
// normed on the way. A step multiplies 16 rows of weights by 8 rows of x, 32 columns of both: the weights are the 16-row
// operand, a lane's 16 bytes cover eight neighbouring columns of one row.
#pragma once
#include "linear.cuh"

#if PHOTONC_TYPE == 0
#error "tensor cores take bf16 and f16"
#endif

// Columns of one tensor-core step, twice: what a 16-byte load of four lanes covers.
#define STEP 32
// Bytes of a piece: 16 of each lane.
#define PIECE 512
// Floats from one row of partial sums to the next: 16 and a gap that keeps the stores off each other's banks.
#define PARTIAL_STRIDE 20

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

// Products of 16 rows of weights, in halves of eight, by eight rows of x.
DEVICE void multiply(float (&sums)[4], const Wide &top, const Wide &bottom, const Wide &x) {
    const unsigned first[2] = {x.word[0], x.word[1]}, second[2] = {x.word[2], x.word[3]};
    const unsigned even[4] = {top.word[0], bottom.word[0], top.word[1], bottom.word[1]};
    const unsigned odd[4] = {top.word[2], bottom.word[2], top.word[3], bottom.word[3]};
    mma_m16n8k16<T>(sums, even, first);
    mma_m16n8k16<T>(sums, odd, second);
}
