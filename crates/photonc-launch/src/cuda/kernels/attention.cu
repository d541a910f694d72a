// Attention over a cache, and what puts keys there: AttendArguments.
//
// attend_cache_{1,4}: any past. A block has one (row, key head); its groups of lanes take every so-many-th key for 1 or 4
// queries at a time and join their partial softmaxes at the end.
// append_keys: rotates the new keys and copies the new values into store.
#include "attention.cuh"

extern "C" __global__ void __launch_bounds__(ATTEND_THREADS) append_keys(const __grid_constant__ AttendArguments a) {
    release_next();
    await_previous();
    int lane = threadIdx.x % LANES;
    int64 unit = ((int64)blockIdx.x * ATTEND_THREADS + threadIdx.x) / LANES;
    if (unit >= (int64)a.rows * a.keys * a.kv_heads) return;
    int head = (int)(unit % a.kv_heads), j = (int)(unit / a.kv_heads % a.keys), row = (int)(unit / a.kv_heads / a.keys);
    store_new_key(a, row, j, head, past_of(a, row), lane);
}

// The last groups of lanes do it: the first have the results to store.
DEVICE void store_new_keys(const AttendArguments &a, int row, int head) {
    int lane = threadIdx.x % LANES, units = blockDim.x / LANES, past = past_of(a, row);
    for (int j = units - 1 - threadIdx.x / LANES; j < a.keys; j += units) {
        store_new_key(a, row, j, head, past, lane);
    }
}

template <int QUERIES> DEVICE void attend_cache(const AttendArguments &a) {
    release_next();
    await_previous();
    int row = blockIdx.x / a.kv_heads, head = blockIdx.x % a.kv_heads, items = a.queries * group_of(a);
    for (int item = 0; item < items; item += QUERIES)
        attend_items<QUERIES>(a, row, head, item, min(QUERIES, items - item));
    if (a.store_k.base) store_new_keys(a, row, head);
}

// Blocks of 256 threads that share a multiprocessor where a key takes few registers; before sm_90 these do not suffice.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr int CACHE_BLOCKS = 1;
#else
constexpr int CACHE_BLOCKS = KEY_REGISTERS <= 4 ? 3 : 1;
#endif
extern "C" __global__ void __launch_bounds__(ATTEND_THREADS, CACHE_BLOCKS) attend_cache_1(const __grid_constant__ AttendArguments a) {
    attend_cache<1>(a);
}
extern "C" __global__ void __launch_bounds__(ATTEND_THREADS) attend_cache_4(const __grid_constant__ AttendArguments a) {
    attend_cache<4>(a);
}
