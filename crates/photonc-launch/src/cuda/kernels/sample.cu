// Random numbers and tokens. `uniforms` is random.rs, bit for bit. `sample` draws as `Sampling::draw` of sampler.rs does,
// a block a row.
//
// Logits are f32 here whatever they are in memory. A share is exp((logit - largest) / temperature) as a whole number of
// 2^-40: sums of shares are exact, so that neither their order nor the number of threads can change a token.
//
// Greedy reads the logits once. Up to FEW candidates: the block's threads find their own largest logits, the k-th largest
// of those bounds the k-th largest of all from below, and the few logits above the bound are collected and sorted. Any
// other number of candidates: every step of the definition (the k-th candidate, the end of top-p, the token itself) is the
// first entry of the sorted vocabulary at which a running sum reaches a number, and is found by histograms over ever
// narrower ranges of logits, without sorting.
#include "device.cuh"

#define SAMPLE_THREADS 512
#define SAMPLE_WARPS (SAMPLE_THREADS / 32)
#define FEW 64
#define COLLECTED 1024
#define BINS 256
#define ONE_SHARE 1099511627776.0f // 2^40

// ---- uniforms ----

DEVICE unsigned high_product(unsigned a, unsigned b) { return (unsigned)(((uint64)a * b) >> 32); }

// The first word of Philox4x32-10.
DEVICE unsigned philox(unsigned c0, unsigned c1, unsigned c2, unsigned c3, unsigned key0, unsigned key1) {
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        unsigned high0 = high_product(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
        unsigned high1 = high_product(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
        c0 = high1 ^ c1 ^ key0;
        c1 = low1;
        c2 = high0 ^ c3 ^ key1;
        c3 = low0;
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c0;
}

extern "C" __global__ void __launch_bounds__(SAMPLE_THREADS) uniforms(const __grid_constant__ UniformArguments a) {
    release_next();
    await_previous();
    int64 all = (int64)a.rows * a.count;
    for (int64 i = (int64)blockIdx.x * SAMPLE_THREADS + threadIdx.x; i < all; i += (int64)gridDim.x * SAMPLE_THREADS) {
        int64 row = i / a.count;
        uint64 token = (uint64)(a.first[row] + (i - row * a.count)), sample = a.sample[row], seed = a.seed[row];
        unsigned word = philox((unsigned)token, (unsigned)(token >> 32), (unsigned)sample, (unsigned)(sample >> 32),
                               (unsigned)seed, (unsigned)(seed >> 32));
        a.out[i] = (float)(word >> 8) * (1.0f / 16777216.0f);
    }
}

// ---- one row of logits ----

struct Logits {
    const void *base;
    int count;
    bool wide;
    bool aligned;
};

DEVICE float logit(const Logits &l, int id) {
    return l.wide ? ((const float *)l.base)[id] : to_float(((const T *)l.base)[id]);
}

// f(id, logit) for this thread's share of the ids, rising; UNROLL loads are in flight.
template <int UNROLL, class F> DEVICE void each_logit(const Logits &l, const F &f) {
    int vectors = 0, per = l.wide ? 4 : PER_WIDE;
    if (l.aligned) {
        vectors = l.count / per;
        if (l.wide) {
#pragma unroll UNROLL
            for (int i = threadIdx.x; i < vectors; i += SAMPLE_THREADS) {
                float values[4];
                unpack(values, load16((const float *)l.base + 4 * i), 0.0f);
#pragma unroll
                for (int j = 0; j < 4; ++j) f(4 * i + j, values[j]);
            }
        } else {
#pragma unroll UNROLL
            for (int i = threadIdx.x; i < vectors; i += SAMPLE_THREADS) {
                float values[PER_WIDE];
                unpack(values, load16((const T *)l.base + PER_WIDE * i), T());
#pragma unroll
                for (int j = 0; j < PER_WIDE; ++j) f(PER_WIDE * i + j, values[j]);
            }
        }
    }
    for (int id = vectors * per + threadIdx.x; id < l.count; id += SAMPLE_THREADS) f(id, logit(l, id));
}

// Whole numbers in the order of the floats; -0 is 0. No float that is a number has key 0.
DEVICE unsigned key_of(float value) {
    unsigned bits = bits_of(value + 0.0f);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
DEVICE float value_of(unsigned key) { return float_of(key & 0x80000000u ? key & 0x7fffffffu : ~key); }

// Larger for a larger logit, then for a lower id.
DEVICE uint64 entry_of(unsigned key, int id) { return ((uint64)key << 32) | (unsigned)~id; }
DEVICE int id_of(uint64 entry) { return (int)~(unsigned)entry; }

template <bool SUM> DEVICE uint64 block_reduce(uint64 value) {
    __shared__ uint64 parts[SAMPLE_WARPS];
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
        uint64 other = __shfl_xor_sync(FULL_WARP, value, step);
        value = SUM ? value + other : (other > value ? other : value);
    }
    __syncthreads();
    if ((threadIdx.x & 31) == 0) parts[threadIdx.x >> 5] = value;
    __syncthreads();
    uint64 all = parts[0];
    for (int i = 1; i < SAMPLE_WARPS; ++i) all = SUM ? all + parts[i] : (parts[i] > all ? parts[i] : all);
    return all;
}

struct Parameters {
    float temperature;
    int64 top_k;
    float top_p;
    float min_p;
    float uniform;
};

struct Row {
    Logits logits;
    float peak;
    float temperature;
};

DEVICE float share_of(const Row &row, float value) { return expf((value - row.peak) / row.temperature); }
DEVICE uint64 whole_share(float share) { return (uint64)(share * ONE_SHARE); }

DEVICE uint64 least_reaching(double x, uint64 most) {
    // The smallest whole number at or above x, at least 1.
    uint64 whole = (uint64)x;
    if ((double)whole < x) ++whole;
    if (whole < 1) whole = 1;
    return whole < most ? whole : most;
}
DEVICE uint64 least_above(double x, uint64 most) {
    uint64 whole = (uint64)x + 1;
    return whole < most ? whole : most;
}

// ---- few candidates ----

// The token among the k largest logits, or -2 where too many are level with the k-th to be collected.
SEPARATE int64 draw_few(Row row, unsigned own_largest, int k, const Parameters &p) {
    __shared__ uint64 collected[COLLECTED];
    __shared__ uint64 sorted[FEW];
    __shared__ uint64 shares[FEW];
    __shared__ float weights[FEW];
    __shared__ int count;
    __shared__ int chosen;
    if (threadIdx.x == 0) count = 0;
    unsigned bound = 0;
    for (int bit = 31; bit >= 0; --bit) {
        unsigned trial = bound | (1u << bit);
        if (__syncthreads_count(own_largest >= trial) >= k) bound = trial;
    }
    each_logit<2>(row.logits, [&](int id, float value) {
        unsigned key = key_of(value);
        if (key >= bound) {
            int slot = atomicAdd(&count, 1);
            if (slot < COLLECTED) collected[slot] = entry_of(key, id);
        }
    });
    __syncthreads();
    int all = count;
    if (all > COLLECTED) return -2;
    for (int i = threadIdx.x; i < all; i += SAMPLE_THREADS) {
        uint64 own = collected[i];
        int rank = 0;
        for (int j = 0; j < all; ++j) rank += collected[j] > own;
        if (rank < k) sorted[rank] = own;
    }
    __syncthreads();
    if ((int)threadIdx.x < k) {
        weights[threadIdx.x] = share_of(row, value_of((unsigned)(sorted[threadIdx.x] >> 32)));
        shares[threadIdx.x] = whole_share(weights[threadIdx.x]);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        uint64 total = 0, mass = 0, upto = 0;
        for (int i = 0; i < k; ++i) total += shares[i];
        uint64 enough = least_reaching((double)p.top_p * (double)total, total);
        int kept = 0;
        for (; kept < k && (kept == 0 || (mass < enough && weights[kept] >= p.min_p)); ++kept) mass += shares[kept];
        uint64 target = least_above((double)p.uniform * (double)mass, mass);
        int at = 0;
        for (upto = shares[0]; upto < target && at + 1 < kept;) upto += shares[++at];
        chosen = id_of(sorted[at]);
    }
    __syncthreads();
    return chosen;
}

// ---- any number of candidates ----

// A first, rough order by how far a logit lies below the largest one.
DEVICE int rough_bin(const Row &row, float value) {
    float below = (row.peak - value) / row.temperature * 8.0f;
    return below < (float)(BINS - 1) ? (int)below : BINS - 1;
}

// Where a running sum over the sorted vocabulary reaches a number: the logit, and the sum before the first logit level
// with it.
struct Reached {
    unsigned key;
    uint64 before;
};

struct Histogram {
    unsigned low[BINS];
    unsigned high[BINS];
};

DEVICE void add_to(Histogram &h, int bin, uint64 amount) {
    unsigned low = (unsigned)amount, high = (unsigned)(amount >> 32);
    unsigned old = atomicAdd(&h.low[bin], low);
    if (old + low < old) ++high;
    if (high) atomicAdd(&h.high[bin], high);
}

// The bin in which the running sum reaches `threshold`, and the sum before it; by one warp.
DEVICE void find_bin(const Histogram &h, uint64 threshold, int *bin, uint64 *before) {
    int lane = threadIdx.x;
    uint64 own = 0;
    for (int i = lane * (BINS / 32); i < (lane + 1) * (BINS / 32); ++i) own += h.low[i] + ((uint64)h.high[i] << 32);
    uint64 upto = own;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        uint64 other = __shfl_up_sync(FULL_WARP, upto, step);
        if (lane >= step) upto += other;
    }
    unsigned reached = __ballot_sync(FULL_WARP, upto >= threshold);
    int owner = reached ? __ffs((int)reached) - 1 : 31;
    if (lane != owner) return;
    uint64 sum = upto - own;
    int at = lane * (BINS / 32);
    for (; at < (lane + 1) * (BINS / 32) - 1; ++at) {
        uint64 next = sum + h.low[at] + ((uint64)h.high[at] << 32);
        if (next >= threshold) break;
        sum = next;
    }
    *bin = at;
    *before = sum;
}

// Narrows [low, high] to the keys of a rough bin: bins fall as keys rise, so both ends are found by bisection.
DEVICE void keys_of_bin(const Row &row, int bin, unsigned &low, unsigned &high) {
    unsigned last = high;
    for (unsigned above = high; low < above;) {
        unsigned middle = low + (above - low) / 2;
        if (rough_bin(row, value_of(middle)) <= bin)
            above = middle;
        else
            low = middle + 1;
    }
    for (high = low; high < last;) {
        unsigned middle = high + (last - high + 1) / 2;
        if (rough_bin(row, value_of(middle)) >= bin)
            high = middle;
        else
            last = middle - 1;
    }
}

// Sums shares, or ones where `counting`. threshold is at least 1 and at most the sum of all.
SEPARATE Reached reach(const Row &row, uint64 threshold, bool counting) {
    __shared__ Histogram histogram;
    __shared__ int chosen;
    __shared__ uint64 above;
    // From minus infinity up.
    unsigned low = 0x007fffffu, high = key_of(row.peak);
    uint64 before = 0;
    for (bool rough = true; rough || low < high; rough = false) {
        int shift = max(0, 24 - __clz((int)(high - low)));
        __syncthreads();
        for (int i = threadIdx.x; i < BINS; i += SAMPLE_THREADS) histogram.low[i] = histogram.high[i] = 0;
        __syncthreads();
        each_logit<1>(row.logits, [&](int, float value) {
            unsigned key = key_of(value);
            if (key < low || key > high) return;
            int bin = rough ? rough_bin(row, value) : (int)((high - key) >> shift);
            add_to(histogram, bin, counting ? 1 : whole_share(share_of(row, value)));
        });
        __syncthreads();
        if (threadIdx.x < 32) find_bin(histogram, threshold - before, &chosen, &above);
        __syncthreads();
        before += above;
        if (rough) {
            keys_of_bin(row, chosen, low, high);
        } else {
            high -= (unsigned)chosen << shift;
            low = max(low, high - min(high, (1u << shift) - 1));
        }
    }
    Reached reached = {low, before};
    return reached;
}

// The `nth` id (from 0) whose logit has this key.
SEPARATE int64 nth_level(const Row &row, unsigned key, int64 nth) {
    __shared__ int counts[SAMPLE_WARPS];
    __shared__ int found;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    if (threadIdx.x == 0) found = -1;
    for (int start = 0; start < row.logits.count; start += SAMPLE_THREADS) {
        int id = start + threadIdx.x;
        bool level = id < row.logits.count && key_of(logit(row.logits, id)) == key;
        unsigned votes = __ballot_sync(FULL_WARP, level);
        __syncthreads();
        if (lane == 0) counts[warp] = __popc(votes);
        __syncthreads();
        int before = 0, all = 0;
        for (int w = 0; w < SAMPLE_WARPS; ++w) {
            before += w < warp ? counts[w] : 0;
            all += counts[w];
        }
        if (nth < all) {
            if (level && before + __popc(votes & ((1u << lane) - 1)) == nth) found = id;
            __syncthreads();
            break;
        }
        nth -= all;
    }
    return found;
}

DEVICE uint64 level_share(const Row &row, unsigned key) { return whole_share(share_of(row, value_of(key))); }

SEPARATE int64 draw_many(const Row &row, const Parameters &p) {
    uint64 all = 0, likely = 0;
    each_logit<1>(row.logits, [&](int, float value) {
        float share = share_of(row, value);
        all += whole_share(share);
        if (share >= p.min_p) likely += whole_share(share);
    });
    uint64 mass = block_reduce<true>(all);
    likely = block_reduce<true>(likely);
    if (p.top_k > 0 && p.top_k < row.logits.count) {
        Reached last = reach(row, (uint64)p.top_k, true);
        // Shares of the logits above the k-th, and of those level with it that are still kept.
        uint64 above = 0;
        each_logit<1>(row.logits, [&](int, float value) {
            if (key_of(value) > last.key) above += whole_share(share_of(row, value));
        });
        mass = block_reduce<true>(above) + ((uint64)p.top_k - last.before) * level_share(row, last.key);
    }
    if (p.top_p < 1.0f) {
        uint64 enough = least_reaching((double)p.top_p * (double)mass, mass);
        Reached end = reach(row, enough, false);
        uint64 share = level_share(row, end.key), level = (enough - end.before + share - 1) / share;
        mass = end.before + level * share;
    }
    // Prefixes of one order: the shortest has the least mass. The largest logit always stays.
    uint64 one = whole_share(1.0f);
    if (likely < one) likely = one;
    if (likely < mass) mass = likely;
    uint64 target = least_above((double)p.uniform * (double)mass, mass);
    Reached token = reach(row, target, false);
    uint64 share = level_share(row, token.key);
    return nth_level(row, token.key, (int64)((target - token.before + share - 1) / share) - 1);
}

// ---- sample ----

DEVICE int64 draw(const Logits &logits, const Parameters &p) {
    bool not_a_number = false;
    unsigned own = 0;
    int own_id = 0;
    each_logit<4>(logits, [&](int id, float value) {
        unsigned key = key_of(value);
        if (value != value)
            not_a_number = true;
        // Ids rise within each of the two parts of a thread's share; the later part has the higher ids.
        else if (key > own) {
            own = key;
            own_id = id;
        }
    });
    if (__syncthreads_or(not_a_number)) return -1;
    uint64 best = block_reduce<false>(own ? entry_of(own, own_id) : 0);
    if (best == 0) return -1;
    if (p.temperature == 0.0f) return id_of(best);
    Row row = {logits, value_of((unsigned)(best >> 32)), p.temperature};
    if (!(fabsf(row.peak) <= 3.402823466e38f)) return -1;
    if (p.top_k >= 1 && p.top_k <= FEW) {
        int k = (int)(p.top_k < logits.count ? p.top_k : logits.count);
        int64 id = draw_few(row, own, k, p);
        if (id != -2) return id;
    }
    return draw_many(row, p);
}

extern "C" __global__ void __launch_bounds__(SAMPLE_THREADS) sample(const __grid_constant__ SampleArguments a) {
    release_next();
    await_previous();
    int r = blockIdx.x, request = r / a.rows_per_parameter;
    Logits logits;
    logits.count = a.vocabulary;
    logits.wide = a.wide != 0;
    logits.base = a.wide ? (const void *)((const float *)a.logits + r * a.logits_stride)
                         : (const void *)((const T *)a.logits + r * a.logits_stride);
    logits.aligned = ((uint64)logits.base & 15) == 0;
    Parameters p;
    p.temperature = a.temperature[request];
    p.top_k = a.top_k[request];
    p.top_p = a.top_p[request];
    p.min_p = a.min_p ? a.min_p[request] : 0.0f;
    p.uniform = a.uniforms[(r / a.uniforms_split) * a.uniforms_outer + (r % a.uniforms_split) * a.uniforms_inner];
    int64 id = draw(logits, p);
    if (threadIdx.x == 0) a.ids[(r / a.ids_split) * a.ids_outer + (r % a.ids_split) * a.ids_inner] = id;
}
