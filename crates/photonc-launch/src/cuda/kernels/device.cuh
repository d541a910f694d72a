// The instructions of the device that kernels use: element types, wide loads, tensor-core products, fast functions. Owns
// every line of PTX. Built for a CPU (PHOTONC_EMULATE, the header that brings threads, barriers, shuffles and fragments
// included first) each has a plain equivalent.
#pragma once
#include "abi.cuh"

#ifndef PHOTONC_TYPE
#error "PHOTONC_TYPE is the element type: 0 (f32), 1 (bf16) or 2 (f16)"
#endif

#define DEVICE __device__ __forceinline__
// What is rarely called: compiled once.
#define SEPARATE static __device__ __noinline__
#define FULL_WARP 0xffffffffu

struct Bf16 {
    unsigned short bits;
};
struct F16 {
    unsigned short bits;
};

#if PHOTONC_TYPE == 0
typedef float T;
#elif PHOTONC_TYPE == 1
typedef Bf16 T;
#else
typedef F16 T;
#endif

// Sixteen bytes that move at once.
struct alignas(16) Wide {
    unsigned word[4];
};

// ---- bits ----

#ifdef PHOTONC_EMULATE
DEVICE unsigned bits_of(float value) {
    unsigned bits;
    __builtin_memcpy(&bits, &value, 4);
    return bits;
}
DEVICE float float_of(unsigned bits) {
    float value;
    __builtin_memcpy(&value, &bits, 4);
    return value;
}
#else
DEVICE unsigned bits_of(float value) { return __float_as_uint(value); }
DEVICE float float_of(unsigned bits) { return __uint_as_float(bits); }
#endif

// Hides where bits come from: what is computed from them is computed after this, not moved before it.
#ifdef PHOTONC_EMULATE
template <class B> DEVICE void renewed(B &) {}
#else
DEVICE void renewed(unsigned &bits) { asm volatile("" : "+r"(bits)); }
DEVICE void renewed(unsigned short &bits) { asm volatile("" : "+h"(bits)); }
#endif

// ---- element types ----

DEVICE float to_float(float value) { return value; }
DEVICE float to_float(Bf16 value) { return float_of((unsigned)value.bits << 16); }

#ifdef PHOTONC_EMULATE
DEVICE float to_float(F16 value) {
    unsigned sign = (unsigned)(value.bits & 0x8000u) << 16, exponent = (value.bits >> 10) & 31u, mantissa = value.bits & 1023u;
    if (exponent == 31) return float_of(sign | 0x7f800000u | (mantissa << 13));
    // Subnormals and zero: mantissa * 2^-24 is exact.
    if (exponent == 0) return float_of(sign | bits_of((float)mantissa * 5.9604644775390625e-8f));
    return float_of(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}
DEVICE unsigned short bf16_bits(float value) {
    unsigned bits = bits_of(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
    return (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
DEVICE unsigned short f16_bits(float value) {
    unsigned bits = bits_of(value), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return 0x7fffu;
    if (magnitude >= 0x47800000u) return (unsigned short)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {
        // Adding 0.5 lines the last bit of a subnormal (2^-24) up with that of the sum, which rounds to even.
        unsigned sum = bits_of(float_of(magnitude) + 0.5f);
        return (unsigned short)(sign | (sum - 0x3f000000u));
    }
    magnitude += 0xfffu + ((magnitude >> 13) & 1u);
    return (unsigned short)(sign | ((magnitude - 0x38000000u) >> 13));
}
#else
DEVICE float to_float(F16 value) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
    return result;
}
DEVICE unsigned short bf16_bits(float value) {
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
DEVICE unsigned short f16_bits(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#endif

template <class E> DEVICE E from_float(float value);
template <> DEVICE float from_float<float>(float value) { return value; }
template <> DEVICE Bf16 from_float<Bf16>(float value) {
    Bf16 result;
    result.bits = bf16_bits(value);
    return result;
}
template <> DEVICE F16 from_float<F16>(float value) {
    F16 result;
    result.bits = f16_bits(value);
    return result;
}

// The value after a round trip through T.
DEVICE float rounded(float value) { return to_float(from_float<T>(value)); }

// Two neighbours of a 16-bit type in one word, the first in the low half.
template <class E> DEVICE float low_of(unsigned word) {
    E value;
    value.bits = (unsigned short)word;
    return to_float(value);
}
template <class E> DEVICE float high_of(unsigned word) {
    E value;
    value.bits = (unsigned short)(word >> 16);
    return to_float(value);
}
template <class E> DEVICE unsigned pack(float low, float high) {
    return (unsigned)from_float<E>(low).bits | ((unsigned)from_float<E>(high).bits << 16);
}
#ifndef PHOTONC_EMULATE
template <> DEVICE float high_of<Bf16>(unsigned word) { return float_of(word & 0xffff0000u); }
template <> DEVICE unsigned pack<Bf16>(float low, float high) {
    unsigned word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}
template <> DEVICE unsigned pack<F16>(float low, float high) {
    unsigned word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}
#endif

// a * b + c of two pairs of a 16-bit type, each rounded once; subnormal numbers are numbers.
template <class E> DEVICE unsigned fma_pairs(unsigned a, unsigned b, unsigned c);
#ifdef PHOTONC_EMULATE
template <class E> DEVICE unsigned fma_pairs(unsigned a, unsigned b, unsigned c) {
    float low = fmaf(low_of<E>(a), low_of<E>(b), low_of<E>(c)), high = fmaf(high_of<E>(a), high_of<E>(b), high_of<E>(c));
    return pack<E>(low, high);
}
#else
template <> DEVICE unsigned fma_pairs<Bf16>(unsigned a, unsigned b, unsigned c) {
    unsigned word;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(word) : "r"(a), "r"(b), "r"(c));
    return word;
}
template <> DEVICE unsigned fma_pairs<F16>(unsigned a, unsigned b, unsigned c) {
    unsigned word;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(word) : "r"(a), "r"(b), "r"(c));
    return word;
}
#endif

// ---- elements of a Wide: 4 of f32, 8 of the others ----

constexpr int PER_WIDE = 16 / (int)sizeof(T);

DEVICE void unpack(float (&out)[4], const Wide &wide, float) {
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i] = float_of(wide.word[i]);
}
template <class E> DEVICE void unpack(float (&out)[8], const Wide &wide, E) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        out[2 * i] = low_of<E>(wide.word[i]);
        out[2 * i + 1] = high_of<E>(wide.word[i]);
    }
}
DEVICE Wide packed(const float (&in)[4], float) {
    Wide wide;
#pragma unroll
    for (int i = 0; i < 4; ++i) wide.word[i] = bits_of(in[i]);
    return wide;
}
template <class E> DEVICE Wide packed(const float (&in)[8], E) {
    Wide wide;
#pragma unroll
    for (int i = 0; i < 4; ++i) wide.word[i] = pack<E>(in[2 * i], in[2 * i + 1]);
    return wide;
}

// ---- memory ----

DEVICE Wide zero_wide() {
    Wide wide = {{0, 0, 0, 0}};
    return wide;
}
// From global or shared memory, 16-byte aligned.
DEVICE Wide load16(const void *from) { return *(const Wide *)from; }
DEVICE void store16(void *to, const Wide &wide) { *(Wide *)to = wide; }

// Global memory that is read once and never written while the kernel runs: weights. Does not occupy the first-level
// cache.
DEVICE Wide load16_once(const void *from) {
#ifdef PHOTONC_EMULATE
    return load16(from);
#else
    Wide wide;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(wide.word[0]), "=r"(wide.word[1]), "=r"(wide.word[2]), "=r"(wide.word[3])
                 : "l"(from));
    return wide;
#endif
}

// Dynamic shared memory of the block, 16-byte aligned.
DEVICE unsigned char *dynamic_shared() {
#ifdef PHOTONC_EMULATE
    return (unsigned char *)emulate::dynamic_shared();
#else
    extern __shared__ uint4 photonc_shared[];
    return (unsigned char *)photonc_shared;
#endif
}

// Sixteen bytes from global to shared memory in the background, and their whole line to the second-level cache, as somebody
// takes its rest soon; zeros where `present` is false (`from` must be a valid address all the same). Copies of a thread form groups; `copies_left<n>` waits until all but the newest n are done.
DEVICE void copy16_later(void *to, const void *from, bool present) {
#ifdef PHOTONC_EMULATE
    cp_async(to, from, 16, present ? 16 : 0);
#else
    unsigned address = (unsigned)__cvta_generic_to_shared(to);
    int bytes = present ? 16 : 0;
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes) : "memory");
#endif
}
// The same of 4, 8 or 16 bytes, aligned to as many.
template <int BYTES> DEVICE void copy_later(void *to, const void *from, bool present) {
    if constexpr (BYTES == 16) {
        copy16_later(to, from, present);
    } else {
#ifdef PHOTONC_EMULATE
        cp_async(to, from, BYTES, present ? BYTES : 0);
#else
        unsigned address = (unsigned)__cvta_generic_to_shared(to);
        int bytes = present ? BYTES : 0;
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address), "l"(from), "n"(BYTES), "r"(bytes)
                     : "memory");
#endif
    }
}
DEVICE void end_copy_group() {
#ifdef PHOTONC_EMULATE
    cp_async_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int N> DEVICE void copies_left() {
#ifdef PHOTONC_EMULATE
    cp_async_wait(N);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

// Towards the second-level cache.
DEVICE void prefetch(const void *address) {
#ifndef PHOTONC_EMULATE
    asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
#endif
}

// ---- launches that overlap ----

// What comes before this call may run before the previous launch of the stream has ended: it must touch nothing but
// constants (weights). Nothing happens where the launch does not allow overlap. Every kernel calls it, so that the end of
// one launch means the end of all before it.
DEVICE void await_previous() {
#if !defined(PHOTONC_EMULATE) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The next launch may start its constant part.
DEVICE void release_next() {
#if !defined(PHOTONC_EMULATE) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// ---- arithmetic ----

#ifdef PHOTONC_EMULATE
DEVICE float fast_exp2(float x) { return exp2f(x); }
DEVICE float fast_rsqrt(float x) { return 1.0f / sqrtf(x); }
DEVICE float fast_divide(float a, float b) { return a / b; }
#else
DEVICE float fast_exp2(float x) {
    float result;
    asm("ex2.approx.f32 %0, %1;" : "=f"(result) : "f"(x));
    return result;
}
DEVICE float fast_rsqrt(float x) { return rsqrtf(x); }
DEVICE float fast_divide(float a, float b) { return __fdividef(a, b); }
#endif
DEVICE float fast_exp(float x) { return fast_exp2(x * 1.4426950408889634f); }

// f32 stays exact; the narrower types take the fast exponential, whose error is far below theirs.
DEVICE float exp_of(float x) { return sizeof(T) == 4 ? expf(x) : fast_exp(x); }
DEVICE float sigmoid(float x) {
    float e = exp_of(-fabsf(x));
    float large = 1.0f / (1.0f + e);
    return x >= 0.0f ? large : e * large;
}
DEVICE float silu(float x) { return x * sigmoid(x); }

// d[16 x 8] += a[16 x 16] * b[16 x 8] of one warp, f32 accumulation. With g = lane / 4 and t = lane % 4:
// a[0] = rows g, columns 2t 2t+1; a[1] = rows g+8; a[2] = row g, columns 2t+8 2t+9; a[3] = row g+8 there;
// b[0] = rows 2t 2t+1, column g; b[1] = rows 2t+8 2t+9; d[0], d[1] = row g, columns 2t 2t+1; d[2], d[3] = row g+8.
template <class E> DEVICE void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]);
#ifdef PHOTONC_EMULATE
template <> DEVICE void mma_m16n8k16<Bf16>(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    mma_m16n8k16_bf16(d, a, b, d);
}
template <> DEVICE void mma_m16n8k16<F16>(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    mma_m16n8k16_f16(d, a, b, d);
}
#else
template <> DEVICE void mma_m16n8k16<Bf16>(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <> DEVICE void mma_m16n8k16<F16>(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

// The b of two such products from a 16 x 16 block of a 16-bit type in shared memory, 16-byte aligned, entry (i, j) at
// block[i * stride + j]. load_rows: b of product h is [k, n] = entry (k, n + 8h). load_columns: [k, n] = entry
// (n + 8h, k).
#ifdef PHOTONC_EMULATE
template <class E> DEVICE void load_rows(unsigned (&b)[2][2], const E *block, int stride) {
    int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    for (int h = 0; h < 2; ++h)
        for (int i = 0; i < 2; ++i) {
            const E *entry = block + (2 * t + 8 * i) * stride + g + 8 * h;
            b[h][i] = (unsigned)entry[0].bits | ((unsigned)entry[stride].bits << 16);
        }
}
template <class E> DEVICE void load_columns(unsigned (&b)[2][2], const E *block, int stride) {
    int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    for (int h = 0; h < 2; ++h)
        for (int i = 0; i < 2; ++i) b[h][i] = *(const unsigned *)(block + (g + 8 * h) * stride + 2 * t + 8 * i);
}
#else
template <class E> DEVICE void load_rows(unsigned (&b)[2][2], const E *block, int stride) {
    int lane = threadIdx.x & 31;
    unsigned from = (unsigned)__cvta_generic_to_shared(block + (lane & 15) * stride + (lane >> 4) * 8);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(b[0][0]), "=r"(b[0][1]), "=r"(b[1][0]), "=r"(b[1][1])
                 : "r"(from)
                 : "memory");
}
template <class E> DEVICE void load_columns(unsigned (&b)[2][2], const E *block, int stride) {
    int lane = threadIdx.x & 31;
    unsigned from = (unsigned)__cvta_generic_to_shared(block + ((lane & 7) + (lane >> 4) * 8) * stride + (lane & 8));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(b[0][0]), "=r"(b[0][1]), "=r"(b[1][0]), "=r"(b[1][1])
                 : "r"(from)
                 : "memory");
}
#endif

// ---- warps ----

template <int LANES> DEVICE float lanes_sum(float value) {
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) value += __shfl_xor_sync(FULL_WARP, value, step);
    return value;
}
template <int LANES> DEVICE float lanes_max(float value) {
#pragma unroll
    for (int step = LANES / 2; step > 0; step /= 2) value = fmaxf(value, __shfl_xor_sync(FULL_WARP, value, step));
    return value;
}

// ---- addresses ----

DEVICE int64 row_offset(const Rows &rows, int r) {
    if (rows.split == 1) return (int64)r * rows.outer;
    int group = r / rows.split;
    return (int64)group * rows.outer + (int64)(r - group * rows.split) * rows.inner;
}
DEVICE T *row_of(const Rows &rows, int r) { return (T *)rows.base + row_offset(rows, r); }
// An address of global memory that is computed here and kept, not again in each branch that uses it.
template <class E> DEVICE E *once(E *address) {
#ifdef PHOTONC_EMULATE
    return address;
#else
    uint64 global = __cvta_generic_to_global(address);
    asm volatile("" : "+l"(global));
    return (E *)__cvta_global_to_generic(global);
#endif
}
DEVICE T *head_of(const Heads &heads, int row, int position, int head) {
    return (T *)heads.base + (int64)row * heads.row + (int64)position * heads.position + (int64)head * heads.head;
}
