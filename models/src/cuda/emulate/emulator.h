// Runs CUDA kernels on the processor, one block after the other: every thread of a block is a fiber, a barrier is where
// fibers take turns. It is strict where a card is forgiving: shared memory and buffers begin as NaN, copies in the
// background arrive only when they are waited for, every access to a buffer can be checked by the address sanitizer.
// The fragments of the matrix instructions are laid out as the PTX ISA describes them (mma.m16n8k16, ldmatrix).
#pragma once
#define EMULATED
#include <math.h>
#include <string.h>
#include <vector>

#define KERNEL(name) void name(const Args args)
#define KERNEL_TWICE(name, threads) KERNEL(name)
#define DEVICE static inline
#define UNROLL
#define SHARED_MEMORY(name) unsigned char *name = emulator::shared
#define block_sync() emulator::block_barrier()

namespace emulator {
struct Index {
    int x, y, z;
};
struct Warp {
    int arrived = 0;
    unsigned turn = 0;
    // What each lane brings to an operation; two slots, since a lane may begin the next while others still read.
    const void *rows[2][32];
    unsigned fragments[2][32][6];
};
extern Index thread, block, grid;
extern unsigned char *shared;
extern Warp *warp;
void block_barrier();
void warp_barrier();
void later(void *to, const void *from, int bytes, bool there);
void commit();
void wait(int pending);
}

#define threadIdx emulator::thread
#define blockIdx emulator::block
#define gridDim emulator::grid

template <int BYTES> static inline void copy_async(void *to, const void *from, bool there) {
    emulator::later(to, from, BYTES, there);
}
static inline void copy_commit() { emulator::commit(); }
template <int PENDING> static inline void copy_wait() { emulator::wait(PENDING); }

// Register i of lane l: row l / 4 of matrix i, columns 2 (l % 4) and the next.
static inline void load_matrices(unsigned (&out)[4], const void *row) {
    emulator::Warp *warp = emulator::warp;
    int lane = threadIdx.x % 32, slot = warp->turn % 2;
    warp->rows[slot][lane] = row;
    emulator::warp_barrier();
    for (int i = 0; i < 4; i++) {
        memcpy(&out[i], (const char *)warp->rows[slot][i * 8 + lane / 4] + lane % 4 * 4, 4);
    }
}

static inline float emulated_half(unsigned pair, int which) {
    unsigned bits = which ? pair & 0xffff0000u : pair << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline void multiply_add(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    emulator::Warp *warp = emulator::warp;
    int lane = threadIdx.x % 32, slot = warp->turn % 2;
    unsigned brought[6] = {a[0], a[1], a[2], a[3], b0, b1};
    memcpy(warp->fragments[slot][lane], brought, sizeof brought);
    emulator::warp_barrier();
    for (int i = 0; i < 4; i++) {
        // Sum i of lane l: row l / 4 (+ 8 for i >= 2), column 2 (l % 4) + i % 2.
        int column = lane % 4 * 2 + i % 2;
        for (int k = 0; k < 16; k++) {
            // Left: (row, k) is in lane 4 (row % 8) + k % 8 / 2, register row / 8 + 2 (k / 8). Right: (k, column) in lane 4 column + k % 8 / 2.
            int left = lane / 4 * 4 + k % 8 / 2, right = column * 4 + k % 8 / 2;
            float x = emulated_half(warp->fragments[slot][left][i / 2 + k / 8 * 2], k % 2);
            float y = emulated_half(warp->fragments[slot][right][4 + k / 8], k % 2);
            sum[i] += x * y;
        }
    }
}
