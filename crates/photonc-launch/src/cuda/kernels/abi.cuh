// What host and kernels agree on: one struct of arguments per kernel, passed by value. Mirrors `arguments.rs` field by
// field; both sides check the sizes. Every stride is in elements of the value's own type, every axis not given a stride
// is contiguous.
#pragma once

typedef long long int64;
typedef unsigned long long uint64;

// Rows of a matrix that may be part of a larger tensor: row r starts at base + (r / split) * outer + (r % split) * inner.
struct Rows {
    void *base;
    int64 outer;
    int64 inner;
    int split;
    int unused;
};

// Heads of a sequence: entry 0 of (row b, position p, head h) is base + b * row + p * position + h * head.
struct Heads {
    void *base;
    int64 row;
    int64 position;
    int64 head;
};

// out[r, j] = act(norm(x[r]) . weight[j] + bias[j]) + residual[r, j]   (bias, norm, residual where their base is not null)
// weight, norm and bias are constants: they may be read before the previous launch has ended.
// mode 0: act is the identity, weight [n, k]. mode 1 (SwiGLU): weight [2n, k], gate rows then up rows,
// out = silu(gate) * up; bias and residual are null. norm: x[r, i] * norm[i] in the place of x, rounded
// to T, and rsqrt(mean(x[r]^2) + eps) a factor of the sum; in f16 that product is a sixteenth and the factor sixteen times.
struct LinearArguments {
    Rows x;           // T [rows, k]
    Rows residual;    // T [rows, n] or null; may be the same memory as out
    Rows out;         // T [rows, n], or float if wide
    const void *norm; // T [k] or null
    const void *weight;
    const void *bias; // T [n] or null
    int rows;
    int k;
    int n;
    int mode;
    int wide; // out is float
    float eps;
};

// The same with a weight in few bits: codes at `linear.weight`, arranged as codes.cuh says, and a scale for each row of the
// weight (int8, fp8) or for each 32 columns of a row, rows filled up to whole stretches (int4).
struct CodesArguments {
    LinearArguments linear;
    const void *scales; // float
    int scheme;         // 0 int8, 1 int4, 2 fp8
    int unused;
};

// out = code * scale, rounded once.
struct DequantizeArguments {
    const void *codes;
    const void *scales;
    void *out; // T [rows, k]
    int rows;
    int k;
    int scheme;
    int unused;
};

// sum = x + residual where residual is not null (stored to sum where that is not null); out = RMS norm of it.
struct NormArguments {
    Rows x;        // T [rows, width]
    Rows residual; // T [rows, width] or null
    Rows sum;      // T [rows, width] or null
    Rows out;      // T [rows, width]
    const void *weight;
    int rows;
    int width;
    float eps;
    int unused;
};

// out = silu(gate) * up
struct SwigluArguments {
    Rows gate; // T [rows, width]
    Rows up;
    Rows out;
    int rows;
    int width;
};

// out[r] = table[ids[r]]; an id outside the vocabulary yields zeros.
struct EmbedArguments {
    const int64 *ids;  // [rows]
    const void *table; // T [vocabulary, width]
    Rows out;          // T [rows, width]
    int rows;
    int width;
    int vocabulary;
    int unused;
};

// Attention with rotary positions over `past` keys in a cache followed by `keys` new ones. Row b has
// past = (lengths ? lengths[b / rows_per_length] * past_scale : 0) + past_base keys in the cache; the key at index i of
// both together stands at position i. Query i stands at position past + first_query + i. Where causal is 1 a query sees
// the keys up to its own position, else all; where visible is not null, of those only the first
// visible[b] * visible_scale. A query that sees none yields zeros. q and k come unrotated (table null: no rotation at
// all); entry [p, t] of table (float2 [positions, head_dim / 2]) is (cos, sin) of position p. Query head h reads key head
// h / (heads / kv_heads). Where store_k.base is not null, the rotated new keys and the new values are also written to
// store at position j (+ past where store_at_past), so that store may be the cache itself. Strides are even, addresses
// multiples of two elements, that of table of 16 bytes.
//
// attend_cache_*: all of this. attend_window_*: lengths is null. append_keys: only the writing to store. attend_stream: keys is 0, so all
// keys are in the cache, those of the queries too (append_keys puts them there): for a stream of n units past_base is n
// and first_query -n, or with m queries that end the stream -m; nothing is stored.
struct AttendArguments {
    Heads q;       // T [rows, queries, heads, head_dim]
    Heads k;       // T [rows, keys, kv_heads, head_dim], unrotated
    Heads v;
    Heads cache_k; // T [rows, capacity, kv_heads, head_dim], rotated
    Heads cache_v;
    Heads store_k;
    Heads store_v;
    Heads out; // T [rows, queries, heads, head_dim]
    const int64 *lengths;
    const int64 *visible;
    const float *table;
    int rows_per_length;
    int past_scale;
    int past_base;
    int visible_scale;
    int rows;
    int heads;
    int kv_heads;
    int queries;
    int keys;
    int first_query;
    int causal;
    int store_at_past;
    int table_positions; // positions beyond the table are the host's error; kernels clamp
    float scale;
};

// Token of each row by temperature, top-k, top-p, min-p, as `Sampling::draw` of sampler.rs does: temperature 0 takes the
// largest logit; ties go to the lowest id; top_k 0 keeps the whole vocabulary. A row without a distribution yields -1.
struct SampleArguments {
    const void *logits; // float [rows, vocabulary] if wide, else T
    int64 logits_stride;
    const float *uniforms; // [rows]
    const float *temperature; // each [rows / rows_per_parameter]
    const int64 *top_k;
    const float *top_p;
    const float *min_p; // may be null: 0
    int64 *ids;         // [rows], entry r at ids[(r / ids_split) * ids_outer + (r % ids_split) * ids_inner]
    int64 ids_outer;
    int64 ids_inner;
    int ids_split;
    int uniforms_split; // uniforms addressed likewise
    int64 uniforms_outer;
    int64 uniforms_inner;
    int rows;
    int rows_per_parameter;
    int vocabulary;
    int wide;
};

// Element types of `elementwise`.
#define TYPE_MODEL 0 // T
#define TYPE_FLOAT 1
#define TYPE_INT64 2
#define TYPE_BOOL 3 // one byte

// Operations of `elementwise`.
#define ELEMENT_COPY 0 // also cast
#define ELEMENT_NEG 1
#define ELEMENT_SIGMOID 2
#define ELEMENT_SILU 3
#define ELEMENT_EXP 4
#define ELEMENT_TANH 5
#define ELEMENT_ADD 8
#define ELEMENT_SUB 9
#define ELEMENT_MUL 10
#define ELEMENT_MAX 11
#define ELEMENT_MIN 12
#define ELEMENT_LESS 16
#define ELEMENT_EQUAL 17
#define ELEMENT_WHERE 24 // a ? b : c

// out[i] = operation(a[i], b[i], c[i]) over a box of five axes, broadcast by strides of 0. Integers are computed in
// int64, floats in float.
struct ElementArguments {
    void *out;
    const void *a;
    const void *b;
    const void *c;
    int64 out_stride[5];
    int64 a_stride[5];
    int64 b_stride[5];
    int64 c_stride[5];
    int size[5];
    int operation;
    int out_type;
    int a_type;
    int b_type;
    int c_type;
};

// out[b, i, :] = x[b, index[b, i], :]; an index outside [0, length) yields zeros.
struct GatherArguments {
    const void *x;      // T [batch, length, width]
    const int64 *index; // [batch, count]
    void *out;          // T [batch, count, width], contiguous
    int64 x_row;
    int64 x_position;
    int64 index_row;
    int64 index_inner;
    int batch;
    int length;
    int count;
    int width;
};

// out[b, i] = uniform(seed[b], sample[b], first[b] + i) of random.rs (Philox4x32-10), [rows, count].
struct UniformArguments {
    float *out;
    const uint64 *seed;
    const uint64 *sample;
    const int64 *first;
    int rows;
    int count;
};

// out[i] = i
struct IotaArguments {
    int64 *out;
    int count;
    int unused;
};

// The sizes that arguments.rs asserts.
// out[block] = exclusive or of the 64-bit halves of the 16-byte words that the block reads: word i falls to block
// i / threads % blocks.
struct ReadArguments {
    const void *data; // 16-byte aligned
    uint64 *out;      // one for each block
    int64 words;
};

// out[b, i, h] = x[b, i, h] rotated by the angles position * theta^(-2 t / width): entries t and t + width / 2 together.
struct RopeArguments {
    Heads x;                // T [rows, count, heads, width]
    Heads out;              // the same
    const int64 *positions; // of (row b, entry i) at b * position_row + i * position_step
    int64 position_row;
    int64 position_step;
    double theta;
    int rows;
    int heads;
    int count;
    int width;
};

// Attention whose keys are rotated before, over lengths[b] slots of a cache (none where lengths is null) and then `keys`
// new ones, of which the last are those of the queries, in order. A query at position p sees the keys up to its own: where
// window is not 0 those after p - window, where tile is not 0 those from the last multiple of tile on. sinks: a logit a
// head that joins the softmax and has no value, or null. Query head h reads key head h / (heads / kv_heads).
struct GeneralArguments {
    Heads q;       // T [rows, queries, heads, width]
    Heads k;       // T [rows, keys, kv_heads, width]
    Heads v;       // T [rows, keys, kv_heads, value_width]
    Heads cache_k; // T [rows, capacity, kv_heads, width]
    Heads cache_v;
    Heads out; // T [rows, queries, heads, value_width]
    const int64 *lengths;
    const void *sinks; // T [heads]
    int rows;
    int heads;
    int kv_heads;
    int queries;
    int keys;
    int width;
    int value_width;
    int window;
    int tile;
    float scale;
};

// cache[b, lengths[b] + i, h] = x[b, i, h]
struct AppendArguments {
    Heads x;     // T [rows, count, heads, width]
    Heads cache; // T [rows, capacity, heads, width]
    const int64 *lengths;
    int rows;
    int heads;
    int count;
    int width;
};

// Gates: scores of the logits (sigmoid, or softmax); the top_k experts whose score plus bias is largest, ties by number,
// keep their score, over the sum of those kept if normalize, times factor; the others are 0. With several groups of
// neighbouring experts only those of the kept_groups best stand to choice, a group being as good as its two largest.
struct RouteArguments {
    Rows logits; // T [rows, experts]
    Rows out;
    const void *bias; // T [experts] or null
    double factor;
    int rows;
    int experts;
    int top_k;
    int groups;
    int kept_groups;
    int normalize;
    int softmax;
    int unused;
};

// experts_up: out[r * top_k + s] = silu(x[r] G) * (x[r] U) of the s-th expert whose gate is not 0, zeros where there is none;
// weight [experts, width, 2 inner], G before U. experts_down: out[r] = sum over them of gate * (x[r * top_k + s] D); weight
// [experts, inner, width].
struct ExpertsArguments {
    Rows x;     // up: T [rows, width]; down: float [rows * top_k, inner]
    Rows gates; // T [rows, experts]
    Rows out;   // up: float [rows * top_k, inner]; down: T [rows, width]
    const void *weight;
    int rows;
    int experts;
    int top_k;
    int inner;
    int width;
    int unused;
};

static_assert(sizeof(Rows) == 32 && sizeof(Heads) == 32, "arguments.rs");
static_assert(sizeof(LinearArguments) == 144 && sizeof(NormArguments) == 152, "arguments.rs");
static_assert(sizeof(CodesArguments) == 160 && sizeof(DequantizeArguments) == 40, "arguments.rs");
static_assert(sizeof(SwigluArguments) == 104 && sizeof(EmbedArguments) == 64, "arguments.rs");
static_assert(sizeof(AttendArguments) == 336 && sizeof(SampleArguments) == 120, "arguments.rs");
static_assert(sizeof(ElementArguments) == 232 && sizeof(GatherArguments) == 72, "arguments.rs");
static_assert(sizeof(UniformArguments) == 40 && sizeof(IotaArguments) == 16, "arguments.rs");
static_assert(sizeof(ReadArguments) == 24, "arguments.rs");
static_assert(sizeof(RopeArguments) == 112 && sizeof(GeneralArguments) == 248, "arguments/general.rs");
static_assert(sizeof(AppendArguments) == 88, "arguments/general.rs");
static_assert(sizeof(RouteArguments) == 112 && sizeof(ExpertsArguments) == 128, "arguments/general.rs");
