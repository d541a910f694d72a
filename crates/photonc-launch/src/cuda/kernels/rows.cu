// Operations on rows: rms_norm, swiglu, embed, gather_rows; the slow general ones: elementwise (but for copies of rows), iota;
// and read_words, whose time is the ceiling of all that read. Rows move 16 bytes at a time where every address allows it, one element at a time
// otherwise.
#include "device.cuh"

#define ROWS_THREADS 256

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

// Pieces of a row that a lane keeps in registers.
#define KEPT 8

// A lane's pieces of a row: piece i is the (32 i + lane)-th.
struct Kept {
    Wide piece[KEPT];

    DEVICE void load(const T *from, int width) {
#pragma unroll
        for (int i = 0; i < KEPT; ++i) {
            int at = (i * 32 + (threadIdx.x & 31)) * PER_WIDE;
            piece[i] = at < width ? load16(from + at) : zero_wide();
        }
    }
};

// The same by one warp, which reads the row once and waits for nobody. Wants rows of at most 32 * KEPT pieces of 16 bytes.
DEVICE void norm_row_kept(const NormArguments &a, int r) {
    int lane = threadIdx.x & 31;
    Kept x, added;
    x.load(row_of(a.x, r), a.width);
    if (a.residual.base) added.load(row_of(a.residual, r), a.width);
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < KEPT; ++i) {
        float values[PER_WIDE], others[PER_WIDE];
        unpack(values, x.piece[i], T());
        if (a.residual.base) {
            unpack(others, added.piece[i], T());
#pragma unroll
            for (int j = 0; j < PER_WIDE; ++j) values[j] += others[j];
            x.piece[i] = packed(values, T());
            unpack(values, x.piece[i], T());
        }
#pragma unroll
        for (int j = 0; j < PER_WIDE; ++j) squares += values[j] * values[j];
    }
    Kept weights;
    weights.load((const T *)a.weight, a.width);
    float scale = 1.0f / sqrtf(lanes_sum<32>(squares) / (float)a.width + a.eps);
    T *sum = a.sum.base ? row_of(a.sum, r) : nullptr;
    T *out = row_of(a.out, r);
#pragma unroll
    for (int i = 0; i < KEPT; ++i) {
        int at = (i * 32 + lane) * PER_WIDE;
        if (at >= a.width) continue;
        if (sum) store16(sum + at, x.piece[i]);
        float values[PER_WIDE], weight[PER_WIDE];
        unpack(values, x.piece[i], T());
        unpack(weight, weights.piece[i], T());
#pragma unroll
        for (int j = 0; j < PER_WIDE; ++j) values[j] = values[j] * scale * weight[j];
        store16(out + at, packed(values, T()));
    }
}

extern "C" __global__ void __launch_bounds__(ROWS_THREADS) rms_norm(const __grid_constant__ NormArguments a) {
    release_next();
    bool wide = wide_rows(a.x) && wide_rows(a.out) && wide_address(a.weight) && a.width % PER_WIDE == 0 &&
                (!a.residual.base || wide_rows(a.residual)) && (!a.sum.base || wide_rows(a.sum));
    bool kept = wide && a.width <= 32 * KEPT * PER_WIDE;
    // Weights that passed through the second-level cache have driven the norm's out.
    if (kept && (int)threadIdx.x * 128 < a.width * (int)sizeof(T)) prefetch((const unsigned char *)a.weight + 128 * threadIdx.x);
    await_previous();
    if (kept) {
        // Neighbouring rows go to different blocks, so that few rows spread over the device.
        int warps = gridDim.x * (ROWS_THREADS / 32);
        for (int r = (threadIdx.x >> 5) * gridDim.x + blockIdx.x; r < a.rows; r += warps) norm_row_kept(a, r);
        return;
    }
    for (int r = blockIdx.x; r < a.rows; r += gridDim.x) {
        if (wide)
            norm_row<PER_WIDE>(a, r);
        else
            norm_row<1>(a, r);
    }
}

// Groups of COUNT neighbouring columns over all rows, this thread's share.
template <int COUNT, class F> DEVICE void each_group(int64 rows, int width, const F &f) {
    int groups = width / COUNT;
    int64 all = rows * groups;
    for (int64 i = (int64)blockIdx.x * ROWS_THREADS + threadIdx.x; i < all; i += (int64)gridDim.x * ROWS_THREADS) {
        // A division of 64 bits takes as long as all the rest.
        int64 row = all <= 0x7fffffff ? (int64)((unsigned)i / (unsigned)groups) : i / groups;
        f(row, (int)(i - row * groups) * COUNT);
    }
}

template <int COUNT> DEVICE void swiglu_rows(const SwigluArguments &a) {
    each_group<COUNT>(a.rows, a.width, [&](int64 row, int column) {
        float gate[COUNT], up[COUNT];
        load_elements(gate, row_of(a.gate, (int)row) + column);
        load_elements(up, row_of(a.up, (int)row) + column);
#pragma unroll
        for (int j = 0; j < COUNT; ++j) gate[j] = silu(gate[j]) * up[j];
        store_elements(row_of(a.out, (int)row) + column, gate);
    });
}

extern "C" __global__ void __launch_bounds__(ROWS_THREADS) swiglu(const __grid_constant__ SwigluArguments a) {
    release_next();
    await_previous();
    if (wide_rows(a.gate) && wide_rows(a.up) && wide_rows(a.out) && a.width % PER_WIDE == 0)
        swiglu_rows<PER_WIDE>(a);
    else
        swiglu_rows<1>(a);
}

template <int COUNT> DEVICE void embed_rows(const EmbedArguments &a) {
    each_group<COUNT>(a.rows, a.width, [&](int64 row, int column) {
        int64 id = a.ids[row];
        bool known = id >= 0 && id < a.vocabulary;
        copy_elements<COUNT>(row_of(a.out, (int)row) + column, (const T *)a.table + (known ? id : 0) * a.width + column, known);
    });
}

extern "C" __global__ void __launch_bounds__(ROWS_THREADS) embed(const __grid_constant__ EmbedArguments a) {
    release_next();
    await_previous();
    if (wide_rows(a.out) && wide_address(a.table) && a.width % PER_WIDE == 0)
        embed_rows<PER_WIDE>(a);
    else
        embed_rows<1>(a);
}

template <int COUNT> DEVICE void gather(const GatherArguments &a) {
    each_group<COUNT>((int64)a.batch * a.count, a.width, [&](int64 row, int column) {
        int64 b = row / a.count, i = row - b * a.count;
        int64 at = a.index[b * a.index_row + i * a.index_inner];
        bool known = at >= 0 && at < a.length;
        const T *from = (const T *)a.x + b * a.x_row + (known ? at : 0) * a.x_position + column;
        copy_elements<COUNT>((T *)a.out + row * a.width + column, from, known);
    });
}

extern "C" __global__ void __launch_bounds__(ROWS_THREADS) gather_rows(const __grid_constant__ GatherArguments a) {
    release_next();
    await_previous();
    if (wide_address(a.x) && wide_address(a.out) && a.x_row % PER_WIDE == 0 && a.x_position % PER_WIDE == 0 &&
        a.width % PER_WIDE == 0)
        gather<PER_WIDE>(a);
    else
        gather<1>(a);
}

// ---- elementwise ----

DEVICE bool is_whole(int type) { return type == TYPE_INT64 || type == TYPE_BOOL; }

DEVICE int64 load_whole(const void *base, int64 at, int type) {
    if (type == TYPE_INT64) return ((const int64 *)base)[at];
    if (type == TYPE_BOOL) return ((const unsigned char *)base)[at] != 0;
    // Towards zero, as a cast of floats to integers goes.
    return (int64)(type == TYPE_FLOAT ? ((const float *)base)[at] : to_float(((const T *)base)[at]));
}
DEVICE float load_real(const void *base, int64 at, int type) {
    if (type == TYPE_FLOAT) return ((const float *)base)[at];
    if (type == TYPE_MODEL) return to_float(((const T *)base)[at]);
    return (float)load_whole(base, at, type);
}
DEVICE void store_whole(void *base, int64 at, int type, int64 value) {
    if (type == TYPE_INT64)
        ((int64 *)base)[at] = value;
    else if (type == TYPE_BOOL)
        ((unsigned char *)base)[at] = value != 0;
    else if (type == TYPE_FLOAT)
        ((float *)base)[at] = (float)value;
    else
        ((T *)base)[at] = from_float<T>((float)value);
}
DEVICE void store_real(void *base, int64 at, int type, float value) {
    if (type == TYPE_FLOAT)
        ((float *)base)[at] = value;
    else if (type == TYPE_MODEL)
        ((T *)base)[at] = from_float<T>(value);
    else
        store_whole(base, at, type, type == TYPE_BOOL ? (int64)(value != 0.0f) : (int64)value);
}

template <class V> DEVICE V arithmetic(int operation, V a, V b) {
    switch (operation) {
    case ELEMENT_NEG:
        return -a;
    case ELEMENT_ADD:
        return a + b;
    case ELEMENT_SUB:
        return a - b;
    case ELEMENT_MUL:
        return a * b;
    case ELEMENT_MAX:
        return a < b || a != a ? b : a;
    case ELEMENT_MIN:
        return b < a || a != a ? b : a;
    default:
        return a;
    }
}

DEVICE void element(const ElementArguments &e, const int64 (&at)[4]) {
    int out = e.out_type;
    if (e.operation == ELEMENT_WHERE) {
        bool first = load_whole(e.a, at[1], e.a_type) != 0;
        const void *base = first ? e.b : e.c;
        int type = first ? e.b_type : e.c_type;
        int64 from = first ? at[2] : at[3];
        if (is_whole(type))
            store_whole(e.out, at[0], out, load_whole(base, from, type));
        else
            store_real(e.out, at[0], out, load_real(base, from, type));
        return;
    }
    bool two = e.operation >= ELEMENT_ADD;
    if (is_whole(e.a_type) && (!two || is_whole(e.b_type)) &&
        (e.operation < ELEMENT_SIGMOID || e.operation >= ELEMENT_ADD)) {
        int64 a = load_whole(e.a, at[1], e.a_type), b = two ? load_whole(e.b, at[2], e.b_type) : 0;
        if (e.operation == ELEMENT_LESS || e.operation == ELEMENT_EQUAL)
            store_whole(e.out, at[0], out, e.operation == ELEMENT_LESS ? a < b : a == b);
        else
            store_whole(e.out, at[0], out, arithmetic(e.operation, a, b));
        return;
    }
    float a = load_real(e.a, at[1], e.a_type), b = two ? load_real(e.b, at[2], e.b_type) : 0.0f;
    if (e.operation == ELEMENT_LESS || e.operation == ELEMENT_EQUAL)
        store_whole(e.out, at[0], out, e.operation == ELEMENT_LESS ? a < b : a == b);
    else if (e.operation == ELEMENT_SIGMOID)
        store_real(e.out, at[0], out, sigmoid(a));
    else if (e.operation == ELEMENT_SILU)
        store_real(e.out, at[0], out, silu(a));
    else if (e.operation == ELEMENT_EXP)
        store_real(e.out, at[0], out, exp_of(a));
    else if (e.operation == ELEMENT_TANH)
        store_real(e.out, at[0], out, tanhf(a));
    else
        store_real(e.out, at[0], out, arithmetic(e.operation, a, b));
}

// Whether a copy's innermost axis can go `bytes` at a time.
DEVICE bool copies_by(const ElementArguments &e, int bytes) {
    int per = bytes / (int)sizeof(T);
    if (e.operation != ELEMENT_COPY || e.out_type != TYPE_MODEL || e.a_type != TYPE_MODEL) return false;
    if (((uint64)e.out | (uint64)e.a) % bytes || e.size[4] % per || e.out_stride[4] != 1 || e.a_stride[4] != 1) return false;
    for (int axis = 0; axis < 4; ++axis)
        if (e.size[axis] > 1 && (e.out_stride[axis] % per || e.a_stride[axis] % per)) return false;
    return true;
}

template <class Word> DEVICE void copy_box(const ElementArguments &e) {
    constexpr int PER = sizeof(Word) / sizeof(T);
    int words = e.size[4] / PER;
    int64 all = (int64)e.size[0] * e.size[1] * e.size[2] * e.size[3] * words;
    for (int64 i = (int64)blockIdx.x * ROWS_THREADS + threadIdx.x; i < all; i += (int64)gridDim.x * ROWS_THREADS) {
        int64 rest = i / words, word = (i - rest * words) * PER, to = word, from = word;
#pragma unroll
        for (int axis = 3; axis >= 0; --axis) {
            if (e.size[axis] == 1) continue;
            int64 next = rest / e.size[axis], index = rest - next * e.size[axis];
            rest = next;
            to += index * e.out_stride[axis];
            from += index * e.a_stride[axis];
        }
        *(Word *)((T *)e.out + to) = *(const Word *)((const T *)e.a + from);
    }
}

extern "C" __global__ void __launch_bounds__(ROWS_THREADS) elementwise(const __grid_constant__ ElementArguments e) {
    release_next();
    await_previous();
    if (copies_by(e, 16)) {
        copy_box<Wide>(e);
        return;
    }
    if (copies_by(e, 8)) {
        copy_box<uint64>(e);
        return;
    }
    int64 all = 1;
    for (int axis = 0; axis < 5; ++axis) all *= e.size[axis];
    for (int64 i = (int64)blockIdx.x * ROWS_THREADS + threadIdx.x; i < all; i += (int64)gridDim.x * ROWS_THREADS) {
        int64 rest = i, at[4] = {0, 0, 0, 0};
#pragma unroll
        for (int axis = 4; axis >= 0; --axis) {
            int64 index = rest % e.size[axis];
            rest /= e.size[axis];
            at[0] += index * e.out_stride[axis];
            at[1] += index * e.a_stride[axis];
            at[2] += index * e.b_stride[axis];
            at[3] += index * e.c_stride[axis];
        }
        element(e, at);
    }
}

extern "C" __global__ void __launch_bounds__(ROWS_THREADS) iota(const __grid_constant__ IotaArguments a) {
    release_next();
    await_previous();
    for (int64 i = (int64)blockIdx.x * ROWS_THREADS + threadIdx.x; i < a.count; i += (int64)gridDim.x * ROWS_THREADS)
        a.out[i] = i;
}

// Every word is read once and has a part in the result, so that no read can be left out.
extern "C" __global__ void __launch_bounds__(ROWS_THREADS) read_words(const __grid_constant__ ReadArguments a) {
    __shared__ uint64 parts[ROWS_THREADS];
    release_next();
    await_previous();
    uint64 all = 0;
#pragma unroll 4
    for (int64 i = (int64)blockIdx.x * ROWS_THREADS + threadIdx.x; i < a.words; i += (int64)gridDim.x * ROWS_THREADS) {
        Wide wide = load16_once((const char *)a.data + i * 16);
        all ^= ((uint64)wide.word[1] << 32 | wide.word[0]) ^ ((uint64)wide.word[3] << 32 | wide.word[2]);
    }
    parts[threadIdx.x] = all;
    __syncthreads();
    for (int half = ROWS_THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) parts[threadIdx.x] ^= parts[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) a.out[blockIdx.x] = parts[0];
}
