// Weights in few bits: where the codes of a row stand, and what they are. Mirrors `codes.rs`, which writes them.
//
// A row is stretches of STEP columns, the last one filled up with zeros, of 64 bytes each: 16 bytes for each of four lanes.
// A lane has columns 32 u + 8 t .. + 8 of every u; those eight are one piece of 8 bytes (4 of int4), so that they meet the
// 16 bytes of x of the same columns. In a word of four codes column j is byte 0, 2, 1, 3; in one of eight it is nibble
// j / 2 + 4 (j % 2): then a mask makes two neighbours the halves of a word.
#pragma once
#include "device.cuh"

#ifndef PHOTONC_SCHEME
#error "PHOTONC_SCHEME is how weights are kept: 0 (int8), 1 (int4) or 2 (fp8: E4M3)"
#endif

// Whether 32 columns have a scale of their own, rather than a row.
#define GROUPED (PHOTONC_SCHEME == 1)
// Stretches of 32 columns in one of STEP.
#define UNITS (GROUPED ? 4 : 2)
#define STEP (32 * UNITS)
// Bytes of a stretch.
#define STRETCH 64

DEVICE int stretches(int k) { return (k + STEP - 1) / STEP; }
DEVICE int64 row_bytes(int k) { return (int64)stretches(k) * STRETCH; }
// Scales of a row.
DEVICE int64 row_scales(int k) { return GROUPED ? (int64)stretches(k) * UNITS : 1; }

// Bytes from the beginning of a row to the codes of columns 8 i .. 8 i + 8.
DEVICE int64 piece_of(int i) {
    int stretch = i / (STEP / 8), t = i % 4, u = i % (STEP / 8) / 4;
    return (int64)stretch * STRETCH + 16 * t + (GROUPED ? 4 : 8) * u;
}

// Code j of the eight at `piece`.
DEVICE float code_of(const unsigned char *piece, int j) {
#if PHOTONC_SCHEME == 1
    int nibble = j / 2 + 4 * (j % 2);
    int code = (piece[nibble / 2] >> (4 * (nibble % 2))) & 15;
    return (float)((code ^ 8) - 8);
#else
    unsigned char code = piece[(j & 4) | ((j & 1) << 1) | ((j >> 1) & 1)];
#if PHOTONC_SCHEME == 0
    return (float)(signed char)code;
#else
    // The exponent's bias is 7 there and 127 here.
    return float_of(((code & 0x80u) << 24) | ((code & 0x7fu) << 20)) * 1.329227995784916e36f;
#endif
#endif
}

// `count` rows of codes that begin at `codes`, each element with its scale.
struct Coded {
    const unsigned char *codes;
    const float *scales;
    int k;

    DEVICE float scale(int64 row, int column) const {
        return scales[row * row_scales(k) + (GROUPED ? column / 32 : 0)];
    }
    DEVICE float at(int64 row, int column) const {
        return code_of(codes + row * row_bytes(k) + piece_of(column / 8), column % 8) * scale(row, column);
    }
};

// code * scale in T, rounded once: the product in f32 is rounded to odd, after which rounding again changes nothing.
DEVICE T element_of(float code, float scale) {
    float product = code * scale, rest = fmaf(code, scale, -product);
    unsigned bits = bits_of(product);
    if (sizeof(T) < 4 && rest != 0.0f && (bits & 1) == 0) bits = (rest > 0.0f) == (product > 0.0f) ? bits + 1 : bits - 1;
    return from_float<T>(float_of(bits));
}

#if PHOTONC_TYPE != 0
// The eight codes of unit u that a lane has, as pairs of T: exact, as every code is a number of bf16 and of f16.
DEVICE void expand(unsigned (&pairs)[4], const Wide &codes, int u) {
#if PHOTONC_SCHEME == 1
    // Exponent of 1024 (128 in bf16) over the code and 8: a number that is 1032 (136) too large.
    constexpr unsigned OVER = PHOTONC_TYPE == 1 ? 0x43084308u : 0x64086408u;
    constexpr unsigned LESS = PHOTONC_TYPE == 1 ? 0xc308c308u : 0xe408e408u;
    constexpr unsigned ONES = PHOTONC_TYPE == 1 ? 0x3f803f80u : 0x3c003c00u;
#pragma unroll
    for (int i = 0; i < 4; ++i)
        pairs[i] = fma_pairs<T>(((codes.word[u] >> (4 * i)) & 0x000f000fu) ^ OVER, ONES, LESS);
#else
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        unsigned word = codes.word[2 * u + i / 2];
#if PHOTONC_SCHEME == 0 && PHOTONC_TYPE == 1
        // bf16 has room for seven bits of a code below 128; the eighth is 128 less.
        unsigned bytes = i % 2 ? word >> 8 : word;
        pairs[i] = fma_pairs<T>((bytes & 0x00800080u) | 0x43004300u, 0xbf80bf80u, (bytes & 0x007f007fu) | 0x43004300u);
#elif PHOTONC_SCHEME == 0
        unsigned bytes = i % 2 ? word >> 8 : word;
        pairs[i] = fma_pairs<T>((bytes & 0x00ff00ffu) ^ 0x64806480u, 0x3c003c00u, 0xe480e480u);
#else
        // Sign, exponent and mantissa at their places; a factor makes up for the smaller bias, subnormal numbers too.
        unsigned bytes = i % 2 ? word : word << 8;
        constexpr int DOWN = PHOTONC_TYPE == 1 ? 4 : 1;
        constexpr unsigned REST = PHOTONC_TYPE == 1 ? 0x07f007f0u : 0x3f803f80u;
        constexpr unsigned FACTOR = PHOTONC_TYPE == 1 ? 0x7b807b80u : 0x5c005c00u;
        pairs[i] = fma_pairs<T>((bytes & 0x80008000u) | ((bytes >> DOWN) & REST), FACTOR, 0u);
#endif
    }
#endif
}
#endif
