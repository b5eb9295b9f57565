// Fibers, barriers, and the reading of a program of launches; see emulator.h. `kernels.inc` is written by the test.
#include "emulator.h"
#include "prelude.cuh"
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

namespace emulator {
Index thread, block, grid;
unsigned char *shared;
Warp *warp;

struct Copy {
    void *to;
    const void *from;
    int bytes;
    bool there;
};
struct Fiber {
    ucontext_t context;
    std::vector<char> stack;
    std::vector<std::vector<Copy>> groups;
    std::vector<Copy> open;
    bool done;
};
static std::vector<Fiber> fibers;
static std::vector<Warp> warps;
static ucontext_t scheduler;
static int threads, current, block_arrived;
static unsigned block_turn;
static void (*kernel)(const Args);
static Args args;

static void yield() { swapcontext(&fibers[current].context, &scheduler); }

void block_barrier() {
    unsigned turn = block_turn;
    if (++block_arrived == threads) {
        block_arrived = 0;
        block_turn++;
    }
    while (block_turn == turn) yield();
}

void warp_barrier() {
    Warp *own = warp;
    unsigned turn = own->turn;
    if (++own->arrived == 32) {
        own->arrived = 0;
        own->turn++;
    }
    while (own->turn == turn) yield();
}

void later(void *to, const void *from, int bytes, bool there) { fibers[current].open.push_back({to, from, bytes, there}); }

void commit() {
    fibers[current].groups.push_back(std::move(fibers[current].open));
    fibers[current].open.clear();
}

void wait(int pending) {
    auto &groups = fibers[current].groups;
    while ((int)groups.size() > pending) {
        for (const Copy &copy : groups.front()) {
            if ((size_t)copy.to % copy.bytes || (copy.there && (size_t)copy.from % copy.bytes)) {
                fprintf(stderr, "a copy of %d bytes is not aligned\n", copy.bytes);
                abort();
            }
            if (copy.there) memcpy(copy.to, copy.from, copy.bytes);
            else memset(copy.to, 0, copy.bytes);
        }
        groups.erase(groups.begin());
    }
}

static void enter() {
    kernel(args);
    fibers[current].done = true;
    yield();
}

static void run_block(int shared_bytes) {
    std::vector<unsigned char> memory(shared_bytes + 128, 0xff);
    shared = memory.data() + (128 - (size_t)memory.data() % 128) % 128;
    block_arrived = 0;
    for (Warp &each : warps) each.arrived = 0;
    for (int i = 0; i < threads; i++) {
        Fiber &fiber = fibers[i];
        fiber.done = false;
        fiber.groups.clear();
        fiber.open.clear();
        fiber.stack.resize(64 << 10);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.data();
        fiber.context.uc_stack.ss_size = fiber.stack.size();
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
    }
    for (int left = threads; left > 0;) {
        for (current = 0; current < threads; current++) {
            if (fibers[current].done) continue;
            thread = {current, 0, 0};
            warp = &warps[current / 32];
            swapcontext(&scheduler, &fibers[current].context);
            if (fibers[current].done) left--;
        }
    }
}

static void launch(void (*entry)(const Args), const int *size, const Args &with) {
    kernel = entry;
    args = with;
    grid = {size[0], size[1], size[2]};
    threads = size[3];
    fibers.resize(threads);
    warps.resize((threads + 31) / 32);
    for (block.z = 0; block.z < grid.z; block.z++)
        for (block.y = 0; block.y < grid.y; block.y++)
            for (block.x = 0; block.x < grid.x; block.x++) run_block(size[4]);
}
}

#include "kernels.inc"

template <class T> static T take(FILE *from) {
    T value;
    if (fread(&value, sizeof value, 1, from) != 1) abort();
    return value;
}

// usage: emulator PROGRAM RESULT. Numbers are little endian: buffers (bytes), contents (buffer, offset, bytes), launches, results.
int main(int, char **names) {
    FILE *program = fopen(names[1], "rb"), *result = fopen(names[2], "wb");
    if (!program || !result) return 1;
    std::vector<unsigned char *> buffers;
    std::vector<long long> sizes;
    for (int count = take<int>(program); count > 0; count--) {
        sizes.push_back(take<long long>(program));
        // Sixteen bytes more than asked for is what the address sanitizer may round up to; malloc is aligned to as many.
        buffers.push_back((unsigned char *)malloc(sizes.back()));
        memset(buffers.back(), 0xff, sizes.back());
    }
    for (int count = take<int>(program); count > 0; count--) {
        int buffer = take<int>(program);
        long long bytes = take<long long>(program);
        if (bytes > sizes[buffer] || fread(buffers[buffer], 1, bytes, program) != (size_t)bytes) return 1;
    }
    for (int count = take<int>(program); count > 0; count--) {
        int entry = take<int>(program), size[5];
        for (int &value : size) value = take<int>(program);
        Args args = take<Args>(program);
        for (unsigned long long &pointer : args.pointers) {
            // A pointer is a buffer's number and, above 2^32, an offset; all ones is none.
            if (pointer == ~0ull) pointer = 0;
            else pointer = (unsigned long long)(buffers[pointer & 0xffffffffu] + (pointer >> 32));
        }
        emulator::launch(entries[entry], size, args);
    }
    for (int count = take<int>(program); count > 0; count--) {
        int buffer = take<int>(program);
        fwrite(buffers[buffer], 1, sizes[buffer], result);
    }
    return fclose(result) == 0 ? 0 : 1;
}
