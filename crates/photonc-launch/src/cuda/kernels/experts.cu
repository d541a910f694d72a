// Routing and expert feed-forward.
//
// route: a warp has a row; scores are in f64, so that the choice is that of the reference wherever f32 logits tell experts
// apart. experts_up: the hidden values of the slot-th chosen expert of a row. experts_down: the sum of what a row's experts
// make of theirs, experts in order. Maps are input-major: neighbouring threads have neighbouring results.
#include "device.cuh"

#define EXPERTS_THREADS 128
// Below every score.
#define LOWEST -1.7976931348623157e308

// Whether entry `at` is among the `count` largest of those that are open, equal ones by place.
template <class Open> DEVICE bool among(const double *values, int entries, int at, int count, Open open) {
    int before = 0;
    for (int i = 0; i < entries; ++i)
        before += open(i) && (values[i] > values[at] || (values[i] == values[at] && i < at));
    return before < count;
}

extern "C" __global__ void __launch_bounds__(32) route(const __grid_constant__ RouteArguments a) {
    release_next();
    await_previous();
    int row = (int)blockIdx.x, lane = threadIdx.x, members = a.experts / a.groups;
    const T *logits = row_of(a.logits, row);
    T *out = row_of(a.out, row);
    double *scores = (double *)dynamic_shared(), *biased = scores + a.experts, *groups = biased + a.experts;
    double largest = LOWEST, mass = 0.0;
    if (a.softmax) {
        for (int e = 0; e < a.experts; ++e) largest = fmax(largest, (double)to_float(logits[e]));
        for (int e = 0; e < a.experts; ++e) mass += exp((double)to_float(logits[e]) - largest);
    }
    for (int e = lane; e < a.experts; e += 32) {
        double logit = (double)to_float(logits[e]);
        scores[e] = a.softmax ? exp(logit - largest) / mass : 1.0 / (1.0 + exp(-logit));
        biased[e] = scores[e] + (a.bias ? (double)to_float(((const T *)a.bias)[e]) : 0.0);
    }
    __syncwarp();
    for (int g = lane; g < a.groups; g += 32) {
        double first = LOWEST, second = LOWEST;
        for (int i = 0; i < members; ++i) {
            double score = biased[g * members + i];
            second = fmax(second, fmin(first, score));
            first = fmax(first, score);
        }
        groups[g] = members > 1 ? first + second : first;
    }
    __syncwarp();
    auto kept = [&](int expert) {
        return a.groups == 1 || among(groups, a.groups, expert / members, a.kept_groups, [](int) { return true; });
    };
    // Marks: a score that is not chosen becomes negative, which no score is.
    for (int e = lane; e < a.experts; e += 32) {
        bool chosen = kept(e) && among(biased, a.experts, e, a.top_k, kept);
        if (!chosen) scores[e] = -1.0;
    }
    __syncwarp();
    double sum = 0.0;
    for (int e = 0; e < a.experts; ++e)
        if (scores[e] >= 0.0) sum += scores[e];
    if (!a.normalize) sum = 1.0;
    for (int e = lane; e < a.experts; e += 32)
        out[e] = from_float<T>(scores[e] >= 0.0 ? (float)(scores[e] / sum * a.factor) : 0.0f);
}

// The slot-th expert whose gate is not 0, from expert `from` on; -1 if there are fewer.
DEVICE int next_expert(const T *gates, int experts, int from, int slot) {
    for (int e = from; e < experts; ++e)
        if (to_float(gates[e]) != 0.0f && slot-- == 0) return e;
    return -1;
}

extern "C" __global__ void __launch_bounds__(EXPERTS_THREADS) experts_up(const __grid_constant__ ExpertsArguments a) {
    release_next();
    await_previous();
    int parts = (a.inner + EXPERTS_THREADS - 1) / EXPERTS_THREADS;
    int i = (int)(blockIdx.x % parts) * EXPERTS_THREADS + threadIdx.x;
    int slot = (int)(blockIdx.x / parts % a.top_k), row = (int)(blockIdx.x / parts / a.top_k);
    if (i >= a.inner) return;
    float *out = (float *)a.out.base + row_offset(a.out, row * a.top_k + slot);
    int expert = next_expert(row_of(a.gates, row), a.experts, 0, slot);
    if (expert < 0) {
        out[i] = 0.0f;
        return;
    }
    const T *x = row_of(a.x, row), *weight = (const T *)a.weight + (int64)expert * a.width * 2 * a.inner + i;
    float gate = 0.0f, up = 0.0f;
    for (int w = 0; w < a.width; ++w) {
        float input = to_float(x[w]);
        const T *at = weight + (int64)w * 2 * a.inner;
        gate = fmaf(input, to_float(at[0]), gate);
        up = fmaf(input, to_float(at[a.inner]), up);
    }
    out[i] = gate / (1.0f + expf(-gate)) * up;
}

extern "C" __global__ void __launch_bounds__(EXPERTS_THREADS) experts_down(const __grid_constant__ ExpertsArguments a) {
    release_next();
    await_previous();
    int parts = (a.width + EXPERTS_THREADS - 1) / EXPERTS_THREADS;
    int j = (int)(blockIdx.x % parts) * EXPERTS_THREADS + threadIdx.x, row = (int)(blockIdx.x / parts);
    if (j >= a.width) return;
    const T *gates = row_of(a.gates, row);
    float sum = 0.0f;
    int expert = -1;
    for (int slot = 0; slot < a.top_k; ++slot) {
        expert = next_expert(gates, a.experts, expert + 1, 0);
        if (expert < 0) break;
        const float *hidden = (const float *)a.x.base + row_offset(a.x, row * a.top_k + slot);
        const T *weight = (const T *)a.weight + (int64)expert * a.inner * a.width + j;
        float part = 0.0f;
        for (int i = 0; i < a.inner; ++i) part = fmaf(hidden[i], to_float(weight[(int64)i * a.width]), part);
        sum = fmaf(to_float(gates[expert]), part, sum);
    }
    row_of(a.out, row)[j] = from_float<T>(sum);
}
