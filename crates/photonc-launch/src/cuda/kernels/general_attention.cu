// What other wirings than PHOTON's own need of attention: rope rotates by itself, append puts entries behind
// those of a cache, attend_general takes any widths, windows,
// tiles and sinks, keys that are rotated before. A block of attend_general has one query of one head; its warps take every
// eighth key and join their partial softmaxes at the end, so that a result depends on the keys of its row alone.
#include "device.cuh"

#define GENERAL_THREADS 256
#define GENERAL_WARPS (GENERAL_THREADS / 32)
// Below every score.
#define LOWEST -3.402823466e38f

extern "C" __global__ void __launch_bounds__(GENERAL_THREADS) rope(const __grid_constant__ RopeArguments a) {
    release_next();
    await_previous();
    int half = a.width / 2;
    int64 items = (int64)a.rows * a.count * half, step = (int64)gridDim.x * GENERAL_THREADS;
    for (int64 item = (int64)blockIdx.x * GENERAL_THREADS + threadIdx.x; item < items; item += step) {
        int t = (int)(item % half), entry = (int)(item / half % a.count), row = (int)(item / half / a.count);
        int64 position = a.positions[row * a.position_row + entry * a.position_step];
        double angle = (double)position * pow(a.theta, -2.0 * t / a.width);
        float sine = (float)sin(angle), cosine = (float)cos(angle);
        for (int head = 0; head < a.heads; ++head) {
            const T *from = head_of(a.x, row, entry, head);
            T *to = head_of(a.out, row, entry, head);
            float low = to_float(from[t]), high = to_float(from[t + half]);
            to[t] = from_float<T>(low * cosine - high * sine);
            to[t + half] = from_float<T>(high * cosine + low * sine);
        }
    }
}

// The first position that a query at `position` reads.
DEVICE int64 first_seen(const GeneralArguments &a, int64 position) {
    int64 near = a.window && position >= a.window ? position + 1 - a.window : 0;
    int64 tile = a.tile ? position / a.tile * a.tile : 0;
    return near > tile ? near : tile;
}

extern "C" __global__ void __launch_bounds__(GENERAL_THREADS) append(const __grid_constant__ AppendArguments a) {
    release_next();
    await_previous();
    int64 items = (int64)a.rows * a.count * a.heads * a.width, step = (int64)gridDim.x * GENERAL_THREADS;
    for (int64 item = (int64)blockIdx.x * GENERAL_THREADS + threadIdx.x; item < items; item += step) {
        int i = (int)(item % a.width), head = (int)(item / a.width % a.heads);
        int entry = (int)(item / a.width / a.heads % a.count), row = (int)(item / a.width / a.heads / a.count);
        head_of(a.cache, row, (int)a.lengths[row] + entry, head)[i] = head_of(a.x, row, entry, head)[i];
    }
}

extern "C" __global__ void __launch_bounds__(GENERAL_THREADS) attend_general(const __grid_constant__ GeneralArguments a) {
    release_next();
    await_previous();
    __shared__ float largest[GENERAL_WARPS], mass[GENERAL_WARPS];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = a.heads / a.kv_heads;
    int query = (int)(blockIdx.x % a.queries), head = (int)(blockIdx.x / a.queries % a.heads);
    int row = (int)(blockIdx.x / a.queries / a.heads), key_head = head / group;
    int64 past = a.lengths ? a.lengths[row] : 0, position = past + a.keys - a.queries + query;
    // The query, then each warp's sum of values.
    float *shared = (float *)dynamic_shared(), *sums = shared + a.width + warp * a.value_width;
    const T *own = head_of(a.q, row, query, head);
    for (int i = threadIdx.x; i < a.width; i += GENERAL_THREADS) shared[i] = to_float(own[i]);
    for (int i = lane; i < a.value_width; i += 32) sums[i] = 0.0f;
    __syncthreads();
    float best = LOWEST, total = 0.0f;
    for (int64 at = first_seen(a, position) + warp; at <= position; at += GENERAL_WARPS) {
        bool cached = at < past;
        int slot = (int)(cached ? at : at - past);
        const T *key = head_of(cached ? a.cache_k : a.k, row, slot, key_head);
        const T *value = head_of(cached ? a.cache_v : a.v, row, slot, key_head);
        float score = 0.0f;
        for (int i = lane; i < a.width; i += 32) score = fmaf(shared[i], to_float(key[i]), score);
        score = lanes_sum<32>(score) * a.scale;
        float next = fmaxf(best, score), kept = expf(best - next), share = expf(score - next);
        for (int i = lane; i < a.value_width; i += 32) sums[i] = fmaf(share, to_float(value[i]), sums[i] * kept);
        total = total * kept + share;
        best = next;
    }
    if (lane == 0) largest[warp] = best, mass[warp] = total;
    __syncthreads();
    float sink = a.sinks ? to_float(((const T *)a.sinks)[head]) : LOWEST, all = sink;
    for (int w = 0; w < GENERAL_WARPS; ++w) all = fmaxf(all, largest[w]);
    float sum = a.sinks ? expf(sink - all) : 0.0f;
    for (int w = 0; w < GENERAL_WARPS; ++w) sum += mass[w] * expf(largest[w] - all);
    T *out = head_of(a.out, row, query, head);
    for (int i = threadIdx.x; i < a.value_width; i += GENERAL_THREADS) {
        float value = 0.0f;
        for (int w = 0; w < GENERAL_WARPS; ++w)
            value = fmaf(shared[a.width + w * a.value_width + i], expf(largest[w] - all), value);
        out[i] = from_float<T>(value / sum);
    }
}
