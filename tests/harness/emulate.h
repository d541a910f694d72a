// CUDA's execution model on a CPU, for tests: every thread of a block is a fiber, barriers and warp operations switch
// between fibers, and the order of warps and lanes is shuffled. Owns threads, barriers, shuffles, matrix fragments, shared
// memory, asynchronous copies, atomics and the intrinsics that kernels use; refuses time: nothing here says how fast a
// kernel is. Reports barriers that some thread does not reach, accesses outside memory, misaligned accesses.
//
// A kernel is `extern "C" __global__ void name(const __grid_constant__ Arguments args)`; the test harness finds kernels in
// the preprocessed source and adds their entry points. Dynamic shared memory is `photonc_emulated_shared()`.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <link.h>
#include <mutex>
#include <signal.h>
#include <source_location>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

#define __device__
#define __host__
#define __constant__ static const
#define __grid_constant__
#define __shared__ static thread_local
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __restrict__ __restrict

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
struct uint3 {
    unsigned x, y, z;
};

#define EMULATE_VECTOR(type, name, bytes)                                                                              \
    struct alignas(2 * bytes) name##2 {                                                                                \
        type x, y;                                                                                                     \
    };                                                                                                                 \
    struct alignas(4 * bytes > 16 ? 16 : 4 * bytes) name##4 {                                                          \
        type x, y, z, w;                                                                                               \
    };                                                                                                                 \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }                                                   \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
EMULATE_VECTOR(signed char, char, 1)
EMULATE_VECTOR(unsigned char, uchar, 1)
EMULATE_VECTOR(short, short, 2)
EMULATE_VECTOR(unsigned short, ushort, 2)
EMULATE_VECTOR(int, int, 4)
EMULATE_VECTOR(unsigned, uint, 4)
EMULATE_VECTOR(float, float, 4)
EMULATE_VECTOR(double, double, 8)
EMULATE_VECTOR(long long, longlong, 8)
EMULATE_VECTOR(unsigned long long, ulonglong, 8)
#undef EMULATE_VECTOR
struct float3 {
    float x, y, z;
};
struct int3 {
    int x, y, z;
};

namespace emulate {

using At = std::source_location;

constexpr unsigned LANES = 32;
constexpr unsigned MOST_THREADS = 1024;
constexpr size_t STACK_BYTES = 256 << 10;
constexpr size_t SHARED_CAPACITY = 256 << 10;
constexpr unsigned char POISON = 0xff; // NaN in f32, f16 and bf16; -1 in integers

// --- Fibers ----------------------------------------------------------------------------------------------------------

#if defined(__x86_64__)
// Saves the callee-saved registers on the stack, leaves its pointer in *from, goes on where `to` was left.
extern "C" __attribute__((visibility("hidden"))) void emulate_switch(void **from, void *to);
asm(R"(
.text
.globl emulate_switch
.hidden emulate_switch
.type emulate_switch, @function
emulate_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulate_switch, .-emulate_switch
)");
#elif defined(__aarch64__)
extern "C" __attribute__((visibility("hidden"))) void emulate_switch(void **from, void *to);
asm(R"(
.text
.globl emulate_switch
.hidden emulate_switch
.type emulate_switch, %function
emulate_switch:
    sub sp, sp, #160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    add sp, sp, #160
    ret
.size emulate_switch, .-emulate_switch
)");
#endif

// Where execution stands when it is not running.
struct Context {
#if defined(__x86_64__) || defined(__aarch64__)
    void *stack_pointer = nullptr;

    void start(char *stack, void (*entry)()) {
        auto **top = reinterpret_cast<void **>(stack + STACK_BYTES);
#if defined(__x86_64__)
        // From the top: no return address, the entry, six registers.
        top[-1] = nullptr;
        top[-2] = reinterpret_cast<void *>(entry);
        std::memset(top - 8, 0, 6 * sizeof(void *));
        stack_pointer = top - 8;
#else
        std::memset(top - 20, 0, 20 * sizeof(void *));
        top[-20 + 11] = reinterpret_cast<void *>(entry); // x30, the return address
        stack_pointer = top - 20;
#endif
    }

    static void change(Context &from, Context &to) { emulate_switch(&from.stack_pointer, to.stack_pointer); }
#else
    ucontext_t context;

    void start(char *stack, void (*entry)()) {
        getcontext(&context);
        context.uc_stack.ss_sp = stack;
        context.uc_stack.ss_size = STACK_BYTES;
        context.uc_link = nullptr;
        makecontext(&context, entry, 0);
    }

    static void change(Context &from, Context &to) { swapcontext(&from.context, &to.context); }
#endif
};

enum class Wait : uint8_t { Ready, Block, Warp, Phase, Done };

// Lanes of a warp that exchange values.
struct Meeting {
    unsigned mask = 0; // 0: unused
    unsigned arrived = 0;
    unsigned departed = 0;
    const char *what = nullptr;
    At at;
    alignas(16) unsigned char values[LANES][64];

    bool complete() const { return arrived == mask; }
};

struct Warp {
    Meeting meetings[LANES];
};

// An asynchronous copy that has not happened yet.
struct Pending {
    void *to;
    const void *from;
    unsigned bytes, from_bytes;
};

// An mbarrier: what it waits for in its current phase.
struct Phase {
    uint16_t count;   // arrivals of a phase
    uint16_t pending; // of which have not come
    int32_t bytes : 31;
    uint32_t parity : 1; // of the current phase

    void settle() {
        if (pending == 0 && bytes == 0) {
            parity = !parity;
            pending = count;
        }
    }
};
static_assert(sizeof(Phase) == 8);

// A matrix whose tiles are copied.
struct Matrix {
    const char *base;
    uint64_t rows, columns; // of two bytes
};

// A copy of a tile that has not happened yet: 16 rows of 64 columns, zeros beyond the matrix. 16 bytes lie at their address
// with its bits 4 to 6 changed by bits 7 to 9.
struct Tile {
    static constexpr unsigned BYTES = 2048;
    char *to;
    Matrix from;
    int64_t row, column;
    Phase *phase;

    void copy() const {
        for (int64_t i = 0; i < BYTES / 16; i++) {
            const int64_t r = row + i / 8, c = column + i % 8 * 8;
            char *place = to + (i ^ (i / 8 % 8)) * 16;
            const int64_t left = r < int64_t(from.rows) ? std::clamp<int64_t>(int64_t(from.columns) - c, 0, 8) : 0;
            std::memcpy(place, from.base + (r * int64_t(from.columns) + c) * 2, size_t(left) * 2);
            std::memset(place + left * 2, 0, size_t(8 - left) * 2);
        }
    }
};

struct Fiber {
    Context context;
    char *stack = nullptr;
    uint3 thread{};
    Wait wait = Wait::Done;
    Meeting *meeting = nullptr;
    Phase *phase = nullptr;
    unsigned parity = 0;
    Warp *warp = nullptr;
    unsigned lane = 0;
    At at;
    int vote = 0;
    std::vector<Pending> copies;   // in order
    std::vector<size_t> committed; // lengths of `copies` at each commit
};

// One launch; mirrors `Request` of the harness's build.rs.
struct Launch {
    const void *arguments;
    uint64_t argument_bytes;
    uint32_t grid[3];
    uint32_t threads;
    uint32_t shared_bytes;
    uint32_t workers;
    uint32_t cooperative; // all blocks run at once
    uint64_t seed;
    char *message;
    uint64_t message_bytes;
};

struct Job {
    const Launch *launch;
    void (*invoke)(void (*)(), const void *);
    void (*kernel)();
    std::atomic<uint64_t> next{0};
    std::atomic<bool> failed{false};
    std::mutex mutex;
    std::string message;
};

// What runs blocks on one thread of the host.
struct Runner {
    Context scheduler;
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    char *stacks = nullptr;
    char *shared_pages = nullptr;
    char *signal_stack = nullptr;
    char *shared = nullptr;
    size_t page = 0;
    unsigned guarded = 0; // stacks whose end is guarded
    Job *job = nullptr;
    uint3 block{};
    uint3 grid{};
    unsigned threads = 0;
    bool failed = false;
    void *fault = nullptr;
    int votes[3] = {0, 0, 0}; // of the last barrier with a vote: how many, any, all
    std::vector<Tile> tiles;
};

struct State {
    Runner *runner;
    Fiber *fiber;
};
static constinit thread_local State state{nullptr, nullptr};

inline std::string place(const At &at) {
    const char *file = std::strrchr(at.file_name(), '/');
    return std::string(file ? file + 1 : at.file_name()) + ":" + std::to_string(at.line());
}

inline std::string whereabouts(const Runner &runner, const Fiber &fiber) {
    return "block (" + std::to_string(runner.block.x) + ", " + std::to_string(runner.block.y) + ", " +
           std::to_string(runner.block.z) + ") thread " + std::to_string(fiber.thread.x);
}

inline void report(Runner &runner, const std::string &message) {
    runner.failed = true;
    std::lock_guard lock(runner.job->mutex);
    if (!runner.job->failed.exchange(true)) {
        runner.job->message = message;
    }
}

inline void leave(Fiber &fiber) { Context::change(fiber.context, state.runner->scheduler); }

// Ends the launch; the fibers of the block are abandoned where they stand.
[[noreturn]] inline void fail(const std::string &what) {
    Fiber &fiber = *state.fiber;
    report(*state.runner, whereabouts(*state.runner, fiber) + ": " + what);
    leave(fiber);
    std::abort();
}

inline void entry() {
    Fiber &fiber = *state.fiber;
    Job &job = *state.runner->job;
    job.invoke(job.kernel, job.launch->arguments);
    fiber.wait = Wait::Done;
    leave(fiber);
    std::abort();
}

// --- Faults ----------------------------------------------------------------------------------------------------------

static struct sigaction previous_handlers[2];

inline void faulted() {
    char text[96];
    std::snprintf(text, sizeof text, "access outside device and shared memory, or beyond the stack, at address %p",
                  state.runner->fault);
    fail(text);
}

// Sends a fiber that faulted to `faulted`, on its own stack, which nothing needs any more.
inline void on_fault(int signal, siginfo_t *info, void *raw) {
    auto *context = static_cast<ucontext_t *>(raw);
    if (state.fiber != nullptr) {
        state.runner->fault = info->si_addr;
        auto top = reinterpret_cast<uintptr_t>(state.fiber->stack + STACK_BYTES) - 64;
#if defined(__x86_64__)
        context->uc_mcontext.gregs[REG_RSP] = static_cast<greg_t>(top - 8);
        context->uc_mcontext.gregs[REG_RIP] = reinterpret_cast<greg_t>(&faulted);
        return;
#elif defined(__aarch64__)
        context->uc_mcontext.sp = top;
        context->uc_mcontext.pc = reinterpret_cast<uintptr_t>(&faulted);
        return;
#else
        (void)top;
#endif
    }
    const struct sigaction &previous = previous_handlers[signal == SIGBUS];
    if (previous.sa_flags & SA_SIGINFO) {
        previous.sa_sigaction(signal, info, raw);
    } else {
        sigaction(signal, &previous, nullptr); // the access is tried again, and ends the program
    }
    (void)context;
}

inline void catch_faults() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        sigaction(SIGSEGV, &action, &previous_handlers[0]);
        sigaction(SIGBUS, &action, &previous_handlers[1]);
    });
}

// --- Blocks ----------------------------------------------------------------------------------------------------------

inline void *pages(size_t bytes) {
    void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        std::perror("emulated device: mmap");
        std::abort();
    }
    return memory;
}

inline Runner *make_runner() {
    auto *runner = new Runner;
    runner->page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t stride = STACK_BYTES + runner->page;
    runner->stacks = static_cast<char *>(pages(MOST_THREADS * stride));
    runner->fibers.resize(MOST_THREADS);
    runner->warps.resize(MOST_THREADS / LANES);
    for (unsigned i = 0; i < MOST_THREADS; i++) {
        Fiber &fiber = runner->fibers[i];
        fiber.stack = runner->stacks + i * stride + runner->page;
        fiber.thread = {i, 0, 0};
        fiber.warp = &runner->warps[i / LANES];
        fiber.lane = i % LANES;
    }
    runner->shared_pages = static_cast<char *>(pages(SHARED_CAPACITY + runner->page));
    mprotect(runner->shared_pages + SHARED_CAPACITY, runner->page, PROT_NONE);
    runner->signal_stack = static_cast<char *>(pages(64 << 10));
    return runner;
}

// Runners are kept: their stacks are large.
static std::mutex runners_mutex;
static std::vector<Runner *> idle_runners;

inline Runner *take_runner() {
    std::lock_guard lock(runners_mutex);
    if (idle_runners.empty()) {
        return make_runner();
    }
    Runner *runner = idle_runners.back();
    idle_runners.pop_back();
    return runner;
}

inline void give_runner(Runner *runner) {
    std::lock_guard lock(runners_mutex);
    idle_runners.push_back(runner);
}

struct Range {
    char *start = nullptr;
    size_t bytes = 0;
};

// This module's thread-local memory on this thread: all `__shared__` variables, and `state`.
inline Range thread_local_memory() {
    struct Search {
        uintptr_t code;
        Range found;
    } search{reinterpret_cast<uintptr_t>(&entry), {}};
    dl_iterate_phdr(
        [](dl_phdr_info *info, size_t, void *raw) {
            auto &search = *static_cast<Search *>(raw);
            bool ours = false;
            size_t bytes = 0;
            for (int i = 0; i < info->dlpi_phnum; i++) {
                const auto &header = info->dlpi_phdr[i];
                const uintptr_t start = info->dlpi_addr + header.p_vaddr;
                ours |= header.p_type == PT_LOAD && search.code >= start && search.code < start + header.p_memsz;
                bytes = header.p_type == PT_TLS ? header.p_memsz : bytes;
            }
            if (ours) {
                search.found = {static_cast<char *>(info->dlpi_tls_data), bytes};
            }
            return ours ? 1 : 0;
        },
        &search);
    return search.found;
}

inline void poison_shared(Runner &runner, Range thread_local_range) {
    auto *kept = reinterpret_cast<char *>(&state);
    char *end = thread_local_range.start + thread_local_range.bytes;
    if (thread_local_range.start != nullptr) {
        std::memset(thread_local_range.start, POISON, static_cast<size_t>(kept - thread_local_range.start));
        std::memset(kept + sizeof state, POISON, static_cast<size_t>(end - kept) - sizeof state);
    }
    std::memset(runner.shared - 256, POISON, static_cast<size_t>(runner.shared_pages + SHARED_CAPACITY - runner.shared) + 256);
}

inline bool untouched(const char *from, const char *to) {
    return std::all_of(from, to, [](char byte) { return static_cast<unsigned char>(byte) == POISON; });
}

inline uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

// Entry `i` of a rotated, maybe reversed order of `count`.
inline unsigned shuffled(unsigned i, unsigned count, uint64_t noise) {
    const unsigned turned = (i + static_cast<unsigned>(noise >> 8) % count) % count;
    return noise & 1 ? count - 1 - turned : turned;
}

// Whether the phase of that parity has ended. Copies of tiles happen when somebody looks whether they have.
inline bool has_ended(Runner &runner, Phase &phase, unsigned parity) {
    for (size_t i = 0; i < runner.tiles.size() && phase.parity == parity;) {
        const Tile tile = runner.tiles[i];
        if (tile.phase != &phase) {
            i++;
            continue;
        }
        runner.tiles.erase(runner.tiles.begin() + static_cast<std::ptrdiff_t>(i));
        tile.copy();
        phase.bytes = phase.bytes - static_cast<int32_t>(Tile::BYTES);
        phase.settle();
    }
    return phase.parity != parity;
}

inline bool can_go_on(Runner &runner, const Fiber &fiber) {
    return fiber.wait == Wait::Ready || (fiber.wait == Wait::Warp && fiber.meeting->complete()) ||
           (fiber.wait == Wait::Phase && has_ended(runner, *fiber.phase, fiber.parity));
}

// Runs the lanes of a warp as far as they get; whether any moved.
inline bool run_warp(Runner &runner, unsigned warp, uint64_t noise) {
    const unsigned first = warp * LANES;
    const unsigned lanes = std::min(LANES, runner.threads - first);
    bool moved = true, ever = false;
    while (moved && !runner.failed) {
        moved = false;
        for (unsigned i = 0; i < lanes && !runner.failed; i++) {
            Fiber &fiber = runner.fibers[first + shuffled(i, lanes, noise)];
            if (can_go_on(runner, fiber)) {
                fiber.wait = Wait::Ready;
                state.fiber = &fiber;
                Context::change(runner.scheduler, fiber.context);
                state.fiber = nullptr;
                moved = ever = true;
            }
        }
    }
    return ever;
}

inline std::string describe(const Runner &runner, const Fiber &fiber) {
    const std::string thread = "thread " + std::to_string(fiber.thread.x);
    switch (fiber.wait) {
    case Wait::Done:
        return thread + " has returned";
    case Wait::Block:
        return thread + " waits in __syncthreads at " + place(fiber.at);
    case Wait::Warp: {
        char masks[64];
        std::snprintf(masks, sizeof masks, " (mask %08x, arrived %08x)", fiber.meeting->mask, fiber.meeting->arrived);
        return thread + " waits in " + fiber.meeting->what + " at " + place(fiber.at) + masks;
    }
    case Wait::Phase:
        return thread + " waits for the end of a phase of copies or arrivals";
    default:
        return thread + " runs";
    }
}

// What to do when no thread can go on: true if the block has ended or failed.
inline bool settle(Runner &runner) {
    unsigned done = 0, waiting = 0, diverged = 0;
    const Fiber &first = runner.fibers[0];
    for (unsigned i = 0; i < runner.threads; i++) {
        const Fiber &fiber = runner.fibers[i];
        done += fiber.wait == Wait::Done;
        waiting += fiber.wait == Wait::Block;
        const bool same = fiber.wait == first.wait &&
                          (fiber.wait != Wait::Block || (fiber.at.line() == first.at.line() &&
                                                         !std::strcmp(fiber.at.file_name(), first.at.file_name())));
        diverged = diverged == 0 && !same ? i : diverged;
    }
    if (done == runner.threads) {
        return true;
    }
    if (diverged == 0 && waiting == runner.threads) {
        runner.votes[0] = 0, runner.votes[1] = 0, runner.votes[2] = 1;
        for (unsigned i = 0; i < runner.threads; i++) {
            Fiber &fiber = runner.fibers[i];
            fiber.wait = Wait::Ready;
            runner.votes[0] += fiber.vote != 0;
            runner.votes[1] |= fiber.vote != 0;
            runner.votes[2] &= fiber.vote != 0;
        }
        return false;
    }
    report(runner, "block (" + std::to_string(runner.block.x) + ", " + std::to_string(runner.block.y) + ", " +
                       std::to_string(runner.block.z) + "): a barrier that not all threads reach: " +
                       describe(runner, first) + ", " + describe(runner, runner.fibers[diverged]));
    return true;
}

inline void run_block(Runner &runner, uint64_t number, Range thread_local_range) {
    const Launch &launch = *runner.job->launch;
    runner.tiles.clear();
    runner.block = {static_cast<unsigned>(number % launch.grid[0]),
                    static_cast<unsigned>(number / launch.grid[0] % launch.grid[1]),
                    static_cast<unsigned>(number / launch.grid[0] / launch.grid[1])};
    poison_shared(runner, thread_local_range);
    for (unsigned i = 0; i < runner.threads; i++) {
        Fiber &fiber = runner.fibers[i];
        fiber.context.start(fiber.stack, entry);
        fiber.wait = Wait::Ready;
        fiber.copies.clear();
        fiber.committed.clear();
        if (fiber.lane == 0) {
            for (Meeting &meeting : fiber.warp->meetings) {
                meeting.mask = 0;
            }
        }
    }
    const unsigned warps = (runner.threads + LANES - 1) / LANES;
    uint64_t noise = mix(launch.seed ^ mix(number));
    bool moved;
    do {
        moved = false;
        for (unsigned i = 0; i < warps && !runner.failed; i++) {
            moved |= run_warp(runner, shuffled(i, warps, noise), mix(noise + i));
        }
        noise = mix(noise);
    } while (!runner.failed && (moved || !settle(runner)));
    if (!runner.failed && !runner.tiles.empty()) {
        report(runner, "a block ended before the copies of its tiles");
    }
    const char *end = runner.shared + launch.shared_bytes;
    if (!runner.failed && (!untouched(runner.shared - 256, runner.shared) ||
                           !untouched(end, runner.shared_pages + SHARED_CAPACITY))) {
        report(runner, "block (" + std::to_string(runner.block.x) + ", " + std::to_string(runner.block.y) + ", " +
                           std::to_string(runner.block.z) + "): wrote outside its dynamic shared memory");
    }
}

inline void run_blocks(Job &job) {
    catch_faults();
    const Launch &launch = *job.launch;
    Runner &runner = *take_runner();
    runner.job = &job;
    runner.threads = launch.threads;
    // Each splits a mapping, of which a process may have so many: no more than there are threads.
    for (; runner.guarded < launch.threads; runner.guarded++) {
        mprotect(runner.stacks + runner.guarded * (STACK_BYTES + runner.page), runner.page, PROT_NONE);
    }
    runner.grid = {launch.grid[0], launch.grid[1], launch.grid[2]};
    runner.failed = false;
    auto shared = reinterpret_cast<uintptr_t>(runner.shared_pages + SHARED_CAPACITY) - launch.shared_bytes;
    runner.shared = reinterpret_cast<char *>(shared & ~uintptr_t{127});
    stack_t mine{}, before{};
    mine.ss_sp = runner.signal_stack;
    mine.ss_size = 64 << 10;
    sigaltstack(&mine, &before);
    state.runner = &runner;
    const Range range = thread_local_memory();
    const uint64_t blocks = uint64_t{launch.grid[0]} * launch.grid[1] * launch.grid[2];
    for (uint64_t block = job.next++; block < blocks && !job.failed; block = job.next++) {
        run_block(runner, block, range);
    }
    state.runner = nullptr;
    sigaltstack(&before, nullptr);
    give_runner(&runner);
}

template <class Arguments>
int launch(void (*kernel)(Arguments), uint64_t most_threads, const Launch &launch) {
    Job job;
    job.launch = &launch;
    job.kernel = reinterpret_cast<void (*)()>(kernel);
    job.invoke = [](void (*kernel)(), const void *arguments) {
        reinterpret_cast<void (*)(Arguments)>(kernel)(*static_cast<const Arguments *>(arguments));
    };
    const uint64_t blocks = uint64_t{launch.grid[0]} * launch.grid[1] * launch.grid[2];
    if (launch.argument_bytes != sizeof(Arguments)) {
        job.message = "arguments of " + std::to_string(launch.argument_bytes) + " bytes, expected " +
                      std::to_string(sizeof(Arguments));
    } else if (launch.threads == 0 || launch.threads > std::min<uint64_t>(most_threads, MOST_THREADS)) {
        job.message = std::to_string(launch.threads) + " threads of a block, expected 1 to " +
                      std::to_string(std::min<uint64_t>(most_threads, MOST_THREADS));
    } else if (blocks == 0 || launch.grid[1] > 65535 || launch.grid[2] > 65535) {
        job.message = "a grid of no blocks, or of more than 65535 along y or z";
    } else if (launch.shared_bytes > SHARED_CAPACITY - 4096) {
        job.message = "more shared memory than any device has";
    } else {
        const bool large = blocks > 1 && blocks * launch.threads >= 4096;
        const uint64_t at_once = launch.cooperative ? blocks : large ? std::min<uint64_t>(launch.workers, blocks) : 1;
        std::vector<std::thread> workers;
        for (uint64_t i = 1; i < at_once; i++) {
            workers.emplace_back([&job] { run_blocks(job); });
        }
        run_blocks(job);
        for (std::thread &worker : workers) {
            worker.join();
        }
    }
    std::snprintf(launch.message, launch.message_bytes, "%s", job.message.c_str());
    return job.message.empty() ? 0 : 1;
}

// --- Barriers and exchanges ------------------------------------------------------------------------------------------

inline void block_barrier(int vote, const At &at) {
    Fiber &fiber = *state.fiber;
    fiber.wait = Wait::Block;
    fiber.at = at;
    fiber.vote = vote;
    leave(fiber);
}

// Waits until all lanes of the mask have brought their value; `depart` when they have been read.
inline Meeting &meet(unsigned mask, const char *what, const void *value, size_t bytes, const At &at) {
    Fiber &fiber = *state.fiber;
    const unsigned self = 1u << fiber.lane;
    if ((mask & self) == 0) {
        fail(std::string(what) + " at " + place(at) + ": the mask lacks the calling lane");
    }
    Meeting *meeting = nullptr;
    for (Meeting &other : fiber.warp->meetings) {
        if (other.mask == mask && (other.arrived & self) == 0) {
            meeting = &other;
            break;
        }
        if (other.mask == 0 && meeting == nullptr) {
            meeting = &other;
        }
    }
    if (meeting->mask == 0) {
        meeting->mask = mask;
        meeting->arrived = meeting->departed = 0;
        meeting->what = what;
        meeting->at = at;
    } else if (std::strcmp(meeting->what, what) != 0) {
        fail(std::string(what) + " at " + place(at) + " where another lane of the mask is in " + meeting->what + " at " +
             place(meeting->at));
    }
    meeting->arrived |= self;
    std::memcpy(meeting->values[fiber.lane], value, bytes);
    if (!meeting->complete()) {
        fiber.wait = Wait::Warp;
        fiber.meeting = meeting;
        fiber.at = at;
        leave(fiber);
    }
    return *meeting;
}

inline void depart(Meeting &meeting) {
    meeting.departed |= 1u << state.fiber->lane;
    if (meeting.departed == meeting.mask) {
        meeting.mask = 0;
    }
}

template <class T> T value_of(const Meeting &meeting, unsigned lane) {
    T value;
    std::memcpy(&value, meeting.values[lane], sizeof value);
    return value;
}

template <class T> T shuffle(unsigned mask, T value, int source, const char *what, const At &at) {
    static_assert(sizeof(T) <= sizeof(Meeting::values[0]));
    Meeting &meeting = meet(mask, what, &value, sizeof value, at);
    T result;
    if (mask >> source & 1) {
        result = value_of<T>(meeting, static_cast<unsigned>(source));
    } else {
        std::memset(&result, POISON, sizeof result); // CUDA leaves the value of a lane outside the mask open
    }
    depart(meeting);
    return result;
}

template <class T, class F> T reduce(unsigned mask, T value, F combine, const char *what, const At &at) {
    Meeting &meeting = meet(mask, what, &value, sizeof value, at);
    bool first = true;
    T result{};
    for (unsigned lane = 0; lane < LANES; lane++) {
        if (mask >> lane & 1) {
            const T other = value_of<T>(meeting, lane);
            result = first ? other : combine(result, other);
            first = false;
        }
    }
    depart(meeting);
    return result;
}

inline int lane() { return static_cast<int>(state.fiber->lane); }

// --- 16-bit floats ---------------------------------------------------------------------------------------------------

inline float bf16_to_float(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

// To the nearest, ties to even.
inline uint16_t float_to_bf16(float value) {
    const auto bits = std::bit_cast<uint32_t>(value);
    if (std::isnan(value)) {
        return 0x7fff;
    }
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float f16_to_float(uint16_t bits) { return static_cast<float>(std::bit_cast<_Float16>(bits)); }

inline uint16_t float_to_f16(float value) {
    return std::isnan(value) ? 0x7fff : std::bit_cast<uint16_t>(static_cast<_Float16>(value));
}

// --- Matrix fragments ------------------------------------------------------------------------------------------------

struct Fragments {
    uint32_t a[4], b[2];
    float c[4];
};

inline float half_of(uint32_t pair, unsigned upper, bool bf16) {
    const auto bits = static_cast<uint16_t>(pair >> (16 * upper));
    return bf16 ? bf16_to_float(bits) : f16_to_float(bits);
}

// mma.sync.aligned.m16n8k16.row.col.f32.T.T.f32, as the PTX ISA lays out the fragments: with g = lane / 4 and
// t = lane % 4, a[i] holds row g + 8 * (i % 2), columns 2t + 8 * (i / 2) and the next; b[i] holds rows 2t + 8 * i and the
// next of column g; c[i] is row g + 8 * (i / 2), column 2t + i % 2. Products and their sum are exact before rounding.
inline void mma(float *d, const uint32_t *a, const uint32_t *b, const float *c, bool bf16, const At &at) {
    Fragments own;
    std::memcpy(own.a, a, sizeof own.a);
    std::memcpy(own.b, b, sizeof own.b);
    std::memcpy(own.c, c, sizeof own.c);
    Meeting &meeting = meet(~0u, bf16 ? "mma (bf16)" : "mma (f16)", &own, sizeof own, at);
    const unsigned g = state.fiber->lane / 4, t = state.fiber->lane % 4;
    for (unsigned i = 0; i < 4; i++) {
        const unsigned column = 2 * t + i % 2;
        double sum = own.c[i];
        for (unsigned k = 0; k < 16; k++) {
            const auto &left = *reinterpret_cast<const Fragments *>(meeting.values[g * 4 + k % 8 / 2]);
            const auto &right = *reinterpret_cast<const Fragments *>(meeting.values[column * 4 + k % 8 / 2]);
            sum += double(half_of(left.a[i / 2 + 2 * (k / 8)], k % 2, bf16)) * half_of(right.b[k / 8], k % 2, bf16);
        }
        d[i] = static_cast<float>(sum);
    }
    depart(meeting);
}

// ldmatrix.sync.aligned.m8n8.xN[.trans].shared.b16: lane 8i + r gives the address of row r of matrix i.
template <unsigned N> void load_matrices(uint32_t *out, const void *row, bool transposed, const At &at) {
    Meeting &meeting = meet(~0u, transposed ? "ldmatrix.trans" : "ldmatrix", &row, sizeof row, at);
    const unsigned g = state.fiber->lane / 4, t = state.fiber->lane % 4;
    for (unsigned i = 0; i < N; i++) {
        uint16_t pair[2];
        for (unsigned upper = 0; upper < 2; upper++) {
            const unsigned r = transposed ? 2 * t + upper : g, c = transposed ? g : 2 * t + upper;
            const auto *address = value_of<const uint16_t *>(meeting, 8 * i + r);
            if (reinterpret_cast<uintptr_t>(address) % 16 != 0) {
                fail("ldmatrix at " + place(at) + ": a row is not aligned to 16 bytes");
            }
            pair[upper] = address[c];
        }
        out[i] = pair[0] | uint32_t{pair[1]} << 16;
    }
    depart(meeting);
}

// --- Asynchronous copies: they happen as late as the waits allow -----------------------------------------------------

inline void copy_later(void *to, const void *from, unsigned bytes, unsigned from_bytes) {
    if (reinterpret_cast<uintptr_t>(to) % bytes != 0 || (from_bytes != 0 && reinterpret_cast<uintptr_t>(from) % bytes != 0)) {
        fail("cp.async of " + std::to_string(bytes) + " bytes: an address is not aligned to them");
    }
    state.fiber->copies.push_back({to, from, bytes, from_bytes});
}

inline void commit_copies() { state.fiber->committed.push_back(state.fiber->copies.size()); }

// Waits until at most `left` committed groups are unfinished.
inline void wait_copies(size_t left) {
    Fiber &fiber = *state.fiber;
    if (fiber.committed.size() <= left) {
        return;
    }
    const size_t groups = fiber.committed.size() - left;
    const size_t ready = fiber.committed[groups - 1];
    for (size_t i = 0; i < ready; i++) {
        const Pending &copy = fiber.copies[i];
        if (copy.from_bytes != 0) {
            std::memcpy(copy.to, copy.from, copy.from_bytes);
        }
        std::memset(static_cast<char *>(copy.to) + copy.from_bytes, 0, copy.bytes - copy.from_bytes);
    }
    fiber.copies.erase(fiber.copies.begin(), fiber.copies.begin() + static_cast<std::ptrdiff_t>(ready));
    fiber.committed.erase(fiber.committed.begin(), fiber.committed.begin() + static_cast<std::ptrdiff_t>(groups));
    for (size_t &length : fiber.committed) {
        length -= ready;
    }
}

// --- Phases of arrivals and copies of tiles ------------------------------------------------------------------------------

inline Phase &phase_at(void *address) {
    if (reinterpret_cast<uintptr_t>(address) % sizeof(Phase) != 0) {
        fail("an mbarrier that is not aligned to 8 bytes");
    }
    return *static_cast<Phase *>(address);
}

inline void begin_phases(void *address, unsigned count) {
    Phase &phase = phase_at(address);
    phase.count = phase.pending = static_cast<uint16_t>(count);
    phase.bytes = 0;
    phase.parity = 0;
}

inline void arrive(void *address, unsigned bytes) {
    Phase &phase = phase_at(address);
    if (phase.pending == 0) {
        fail("more arrivals at an mbarrier than it waits for");
    }
    phase.pending--;
    phase.bytes = phase.bytes + static_cast<int32_t>(bytes);
    phase.settle();
}

inline void await_phase(void *address, unsigned parity) {
    Phase &phase = phase_at(address);
    if (!has_ended(*state.runner, phase, parity)) {
        Fiber &fiber = *state.fiber;
        fiber.wait = Wait::Phase;
        fiber.phase = &phase;
        fiber.parity = parity;
        leave(fiber);
    }
}

// `map` is what the harness's `tile_map` makes.
inline void copy_tile(void *to, const void *map, int row, int column, void *phase) {
    if (reinterpret_cast<uintptr_t>(to) % 1024 != 0) {
        fail("a tile that is not aligned to 1024 bytes");
    }
    state.runner->tiles.push_back({static_cast<char *>(to), *static_cast<const Matrix *>(map), row, column, &phase_at(phase)});
}

inline void *dynamic_shared() { return state.runner->shared; }

// --- Blocks that wait for each other ---------------------------------------------------------------------------------

inline void count_in(unsigned long long *counter) { std::atomic_ref(*counter).fetch_add(1); }

// Every block has a thread of the host, so that this one may wait.
inline void wait_for_count(unsigned long long *counter, unsigned long long count) {
    if (!state.runner->job->launch->cooperative) {
        fail("waits for other blocks in a launch that does not run all of them at once");
    }
    while (std::atomic_ref(*counter).load() < count) {
        if (state.runner->job->failed) {
            fail("waits for a block that failed");
        }
        std::this_thread::yield();
    }
}

} // namespace emulate

// --- Reports of the compiler's own checks (-fsanitize=alignment,bounds,null) -------------------------------------------

namespace emulate {
struct Place {
    const char *file;
    uint32_t line, column;
};
inline std::string place(const Place &at) {
    const char *file = std::strrchr(at.file, '/');
    return std::string(file ? file + 1 : at.file) + ":" + std::to_string(at.line);
}
struct Mismatch {
    Place at;
    void *type;
    unsigned char log_alignment, kind;
};
struct OutOfBounds {
    Place at;
    void *array, *index;
};
} // namespace emulate

extern "C" {
#define EMULATE_HANDLER __attribute__((visibility("hidden"), used)) inline void
EMULATE_HANDLER __ubsan_handle_type_mismatch_v1_abort(emulate::Mismatch *data, uintptr_t address) {
    char text[160];
    std::snprintf(text, sizeof text, "%s: access to %s address %p (alignment %u)", emulate::place(data->at).c_str(),
                  address == 0 ? "null" : "misaligned", reinterpret_cast<void *>(address), 1u << data->log_alignment);
    emulate::fail(text);
}
EMULATE_HANDLER __ubsan_handle_out_of_bounds_abort(emulate::OutOfBounds *data, uintptr_t index) {
    emulate::fail(emulate::place(data->at) + ": index " + std::to_string(static_cast<long long>(index)) +
                  " is outside the array");
}
EMULATE_HANDLER __ubsan_handle_pointer_overflow_abort(emulate::Place *at, uintptr_t, uintptr_t) {
    emulate::fail(emulate::place(*at) + ": an address overflows");
}
#undef EMULATE_HANDLER
}

// --- What kernels call -----------------------------------------------------------------------------------------------

#define threadIdx (emulate::state.fiber->thread)
#define blockIdx (emulate::state.runner->block)
#define gridDim (emulate::state.runner->grid)
#define blockDim (uint3{emulate::state.runner->threads, 1, 1})
#define warpSize 32
#define EMULATE_AT emulate::At at = emulate::At::current()

inline void __syncthreads(EMULATE_AT) { emulate::block_barrier(0, at); }
inline int __syncthreads_count(int vote, EMULATE_AT) {
    emulate::block_barrier(vote, at);
    return emulate::state.runner->votes[0];
}
inline int __syncthreads_or(int vote, EMULATE_AT) {
    emulate::block_barrier(vote, at);
    return emulate::state.runner->votes[1];
}
inline int __syncthreads_and(int vote, EMULATE_AT) {
    emulate::block_barrier(vote, at);
    return emulate::state.runner->votes[2];
}
inline void __syncwarp(unsigned mask = ~0u, EMULATE_AT) {
    const char none = 0;
    emulate::depart(emulate::meet(mask, "__syncwarp", &none, 1, at));
}

template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMULATE_AT) {
    const int first = emulate::lane() & ~(width - 1);
    return emulate::shuffle(mask, value, first + (source & (width - 1)), "__shfl_sync", at);
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, EMULATE_AT) {
    const int own = emulate::lane(), source = own ^ lanes;
    return emulate::shuffle(mask, value, source < (own & ~(width - 1)) + width ? source : own, "__shfl_xor_sync", at);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32, EMULATE_AT) {
    const int own = emulate::lane(), source = own + static_cast<int>(lanes);
    return emulate::shuffle(mask, value, source < (own & ~(width - 1)) + width ? source : own, "__shfl_down_sync", at);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32, EMULATE_AT) {
    const int own = emulate::lane(), source = own - static_cast<int>(lanes);
    return emulate::shuffle(mask, value, source >= (own & ~(width - 1)) ? source : own, "__shfl_up_sync", at);
}
inline unsigned __ballot_sync(unsigned mask, int vote, EMULATE_AT) {
    const unsigned own = vote ? 1u << emulate::lane() : 0;
    return emulate::reduce(mask, own, [](unsigned a, unsigned b) { return a | b; }, "__ballot_sync", at);
}
inline int __any_sync(unsigned mask, int vote, EMULATE_AT) {
    return emulate::reduce(mask, int{vote != 0}, [](int a, int b) { return a | b; }, "__any_sync", at);
}
inline int __all_sync(unsigned mask, int vote, EMULATE_AT) {
    return emulate::reduce(mask, int{vote != 0}, [](int a, int b) { return a & b; }, "__all_sync", at);
}
template <class T> T __reduce_add_sync(unsigned mask, T value, EMULATE_AT) {
    return emulate::reduce(mask, value, [](T a, T b) { return T(a + b); }, "__reduce_add_sync", at);
}
template <class T> T __reduce_min_sync(unsigned mask, T value, EMULATE_AT) {
    return emulate::reduce(mask, value, [](T a, T b) { return a < b ? a : b; }, "__reduce_min_sync", at);
}
template <class T> T __reduce_max_sync(unsigned mask, T value, EMULATE_AT) {
    return emulate::reduce(mask, value, [](T a, T b) { return a < b ? b : a; }, "__reduce_max_sync", at);
}
template <class T> unsigned __match_any_sync(unsigned mask, T value, EMULATE_AT) {
    emulate::Meeting &meeting = emulate::meet(mask, "__match_any_sync", &value, sizeof value, at);
    unsigned same = 0;
    for (unsigned lane = 0; lane < emulate::LANES; lane++) {
        same |= (mask >> lane & 1) && emulate::value_of<T>(meeting, lane) == value ? 1u << lane : 0;
    }
    emulate::depart(meeting);
    return same;
}

// d = a * b + c of the whole warp; d may be c.
inline void mma_m16n8k16_bf16(float *d, const uint32_t *a, const uint32_t *b, const float *c, EMULATE_AT) {
    emulate::mma(d, a, b, c, true, at);
}
inline void mma_m16n8k16_f16(float *d, const uint32_t *a, const uint32_t *b, const float *c, EMULATE_AT) {
    emulate::mma(d, a, b, c, false, at);
}
inline void ldmatrix_x1(uint32_t *out, const void *row, EMULATE_AT) { emulate::load_matrices<1>(out, row, false, at); }
inline void ldmatrix_x2(uint32_t *out, const void *row, EMULATE_AT) { emulate::load_matrices<2>(out, row, false, at); }
inline void ldmatrix_x4(uint32_t *out, const void *row, EMULATE_AT) { emulate::load_matrices<4>(out, row, false, at); }
inline void ldmatrix_x2_trans(uint32_t *out, const void *row, EMULATE_AT) { emulate::load_matrices<2>(out, row, true, at); }
inline void ldmatrix_x4_trans(uint32_t *out, const void *row, EMULATE_AT) { emulate::load_matrices<4>(out, row, true, at); }

// cp.async of `bytes` (4, 8 or 16), of which `from_bytes` are read and the rest are zeros.
inline void cp_async(void *shared, const void *global, unsigned bytes, unsigned from_bytes) {
    emulate::copy_later(shared, global, bytes, from_bytes);
}
inline void cp_async_commit() { emulate::commit_copies(); }
inline void cp_async_wait(unsigned groups_left) { emulate::wait_copies(groups_left); }

inline void *photonc_emulated_shared() { return emulate::dynamic_shared(); }

template <class T, class F> T emulate_atomic(T *address, F change) {
    std::atomic_ref<T> place(*address);
    T old = place.load();
    while (!place.compare_exchange_weak(old, change(old))) {
    }
    return old;
}
template <class T> T atomicAdd(T *address, std::type_identity_t<T> value) {
    return emulate_atomic(address, [=](T old) { return T(old + value); });
}
template <class T> T atomicSub(T *address, std::type_identity_t<T> value) {
    return emulate_atomic(address, [=](T old) { return T(old - value); });
}
template <class T> T atomicMax(T *address, std::type_identity_t<T> value) {
    return emulate_atomic(address, [=](T old) { return old < value ? value : old; });
}
template <class T> T atomicMin(T *address, std::type_identity_t<T> value) {
    return emulate_atomic(address, [=](T old) { return value < old ? value : old; });
}
template <class T> T atomicOr(T *address, std::type_identity_t<T> value) {
    return emulate_atomic(address, [=](T old) { return T(old | value); });
}
template <class T> T atomicAnd(T *address, std::type_identity_t<T> value) {
    return emulate_atomic(address, [=](T old) { return T(old & value); });
}
template <class T> T atomicExch(T *address, std::type_identity_t<T> value) {
    return emulate_atomic(address, [=](T) { return value; });
}
template <class T> T atomicCAS(T *address, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
    return emulate_atomic(address, [=](T old) { return old == expected ? value : old; });
}
inline unsigned atomicInc(unsigned *address, unsigned limit) {
    return emulate_atomic(address, [=](unsigned old) { return old >= limit ? 0 : old + 1; });
}
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_block() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __trap() { emulate::fail("__trap"); }

template <class T> T __ldg(const T *address) { return *address; }
template <class T> T __ldcg(const T *address) { return *address; }
template <class T> T __ldcs(const T *address) { return *address; }
template <class T> T __ldca(const T *address) { return *address; }
template <class T> void __stcg(T *address, std::type_identity_t<T> value) { *address = value; }
template <class T> void __stcs(T *address, std::type_identity_t<T> value) { *address = value; }

inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }
inline int __float_as_int(float value) { return std::bit_cast<int>(value); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline float __int_as_float(int bits) { return std::bit_cast<float>(bits); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
inline int __mulhi(int a, int b) { return static_cast<int>(int64_t{a} * b >> 32); }
inline int __popc(unsigned bits) { return std::popcount(bits); }
inline int __popcll(unsigned long long bits) { return std::popcount(bits); }
inline int __clz(int bits) { return std::countl_zero(static_cast<unsigned>(bits)); }
inline int __clzll(long long bits) { return std::countl_zero(static_cast<unsigned long long>(bits)); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __ffsll(long long bits) { return __builtin_ffsll(bits); }

inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __exp2f(float x) { return std::exp2(x); }
inline float __sinf(float x) { return std::sin(x); }
inline float __cosf(float x) { return std::cos(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
// Never contracted with what surrounds them.
__attribute__((noinline)) inline float __fadd_rn(float a, float b) { return a + b; }
__attribute__((noinline)) inline float __fmul_rn(float a, float b) { return a * b; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __saturatef(float x) { return x < 0.0f ? 0.0f : x > 1.0f ? 1.0f : x; }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline int __float2int_rz(float x) { return static_cast<int>(x); }
inline float __int2float_rn(int x) { return static_cast<float>(x); }

template <class A, class B> constexpr auto min(A a, B b) { return b < a ? std::common_type_t<A, B>(b) : a; }
template <class A, class B> constexpr auto max(A a, B b) { return a < b ? std::common_type_t<A, B>(b) : a; }
using std::isinf;
using std::isnan;
