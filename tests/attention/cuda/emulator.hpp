// CUDA on a CPU, as far as our kernels use it: one block at a time, its threads as fibers that run from barrier to barrier.
//
// A fiber runs until it comes to a barrier; then the next one runs, in ascending or descending order of the threads, and
// when all have come, all go on. So a thread is a whole phase ahead of another at every point: what needs a barrier and
// has none goes wrong in one of the two orders. A barrier that not all threads come to, or at different lines, is an
// error. Shared memory is full of NaN when a block starts. Barriers at one line can be left out, to see that it matters.

#pragma once
#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(...)
#define __syncthreads() emulated::wait(__LINE__)

struct Index { unsigned int x; };
static Index threadIdx, blockIdx;

namespace emulated {

constexpr int THREADS = 256;
constexpr std::size_t STACK = 1 << 16, MOST_SHARED = 48 << 10;
enum Problem { NONE, DIVERGED };

struct Fiber { ucontext_t start; jmp_buf at; int line; bool running, done; };

static std::vector<char> stacks(THREADS * STACK);
alignas(64) static unsigned char shared_memory[MOST_SHARED];
static Fiber fibers[THREADS];
static jmp_buf scheduler;
static void (*body)(void**);
static void** arguments;
static int skipped_line;

// Stands for `__shared__ T name;`
template <class T> T& shared() {
    static_assert(sizeof(T) <= MOST_SHARED, "a block has 48 KiB of shared memory, if it does not ask for more");
    return *reinterpret_cast<T*>(shared_memory);
}

inline void pause(int line) {
    Fiber& own = fibers[threadIdx.x];
    own.line = line;
    if (_setjmp(own.at) == 0) _longjmp(scheduler, 1);
}

inline void wait(int line) {
    if (line != skipped_line) pause(line);
}

inline void run_fiber() {
    body(arguments);
    fibers[threadIdx.x].done = true;
    _longjmp(scheduler, 1);
}

inline void resume(int thread) {
    threadIdx.x = thread;
    if (_setjmp(scheduler) != 0) return;
    if (fibers[thread].running) _longjmp(fibers[thread].at, 1);
    fibers[thread].running = true;
    setcontext(&fibers[thread].start);
}

inline Problem run_block(bool descending) {
    std::memset(shared_memory, 0xff, sizeof shared_memory);
    for (int thread = 0; thread < THREADS; ++thread) {
        Fiber& own = fibers[thread];
        own.running = own.done = false;
        getcontext(&own.start);
        own.start.uc_stack.ss_sp = stacks.data() + thread * STACK;
        own.start.uc_stack.ss_size = STACK;
        own.start.uc_link = nullptr;
        makecontext(&own.start, run_fiber, 0);
    }
    for (;;) {
        for (int number = 0; number < THREADS; ++number) resume(descending ? THREADS - 1 - number : number);
        for (const Fiber& other : fibers)
            if (other.done != fibers[0].done || (!other.done && other.line != fibers[0].line)) return DIVERGED;
        if (fibers[0].done) return NONE;
    }
}

template <class... P, std::size_t... I>
void call(void (*kernel)(P...), void** values, std::index_sequence<I...>) {
    kernel(*static_cast<P*>(values[I])...);
}
template <class... P> constexpr int count(void (*)(P...)) { return sizeof...(P); }
template <auto kernel> void unpack(void** values) {
    call(kernel, values, std::make_index_sequence<count(kernel)>{});
}

struct Kernel { const char* name; void (*body)(void**); int count; };

}  // namespace emulated

template <class A> inline A __shfl_xor_sync(unsigned int, A value, int lanes) {
    static A slots[emulated::THREADS];
    slots[threadIdx.x] = value;
    emulated::pause(-1);
    const A other = slots[threadIdx.x ^ lanes];
    emulated::pause(-2);
    return other;
}

inline float of_bits(unsigned int bits) { float x; std::memcpy(&x, &bits, 4); return x; }
inline unsigned int bits_of(float x) { unsigned int bits; std::memcpy(&bits, &x, 4); return bits; }

struct Half;
inline float number(Half x);
inline void store(Half* at, float x);
