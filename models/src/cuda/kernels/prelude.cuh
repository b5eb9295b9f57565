// What every kernel shares: the one argument record, bfloat16 by hand, indices at borders, and the few operations of
// a warp that tensor cores need. Compiled by NVRTC without any header, and by a C++ compiler for the tests, where
// EMULATED supplies the warp.
//
// All kernels take one `Args` by value, so that a launch is plain data on the side of Rust (program.rs).

struct Args {
    unsigned long long pointers[6];
    int ints[16];
    float floats[24];
};

typedef unsigned short bf16;

#ifndef EMULATED
#define KERNEL(name) extern "C" __global__ void name(const __grid_constant__ Args args)
// As KERNEL, for so many threads, with registers to spare for two blocks a multiprocessor.
#define KERNEL_TWICE(name, threads) extern "C" __global__ void __launch_bounds__(threads, 2) name(const __grid_constant__ Args args)
#define DEVICE static __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define SHARED_MEMORY(name) extern __shared__ __align__(128) unsigned char name[]
#define block_sync() __syncthreads()
#endif

struct alignas(16) Vector16 {
    unsigned words[4];
};

DEVICE float bits_to_float(unsigned bits) {
#ifdef EMULATED
    union { unsigned u; float f; } both;
    both.u = bits;
    return both.f;
#else
    return __uint_as_float(bits);
#endif
}

DEVICE float widen(bf16 value) { return bits_to_float((unsigned)value << 16); }
DEVICE float widen(float value) { return value; }

// Rounds to nearest, ties to even.
DEVICE void narrow(float value, bf16 &out) {
#ifdef EMULATED
    union { float f; unsigned u; } both;
    both.f = value;
    bool nan = (both.u & 0x7fffffffu) > 0x7f800000u;
    out = (bf16)(nan ? (both.u >> 16) | 0x40u : (both.u + 0x7fffu + ((both.u >> 16) & 1u)) >> 16);
#else
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out) : "f"(value));
#endif
}
DEVICE void narrow(float value, float &out) { out = value; }

// Mirrors an index into 0..length without repeating the border, as often as needed.
DEVICE int mirrored(int index, int length) {
    if ((unsigned)index < (unsigned)length) return index;
    if (length == 1) return 0;
    int period = 2 * length - 2;
    int within = index % period;
    if (within < 0) within += period;
    return within < length ? within : period - within;
}

DEVICE int clamped(int index, int length) { return index < 0 ? 0 : (index >= length ? length - 1 : index); }

DEVICE float limited(float value, float low, float high) { return fminf(fmaxf(value, low), high); }

#ifndef EMULATED

// Copies BYTES (8 or 16) from global to shared memory in the background; zeros where `there` is false.
template <int BYTES> DEVICE void copy_async(void *to, const void *from, bool there) {
    unsigned at = (unsigned)__cvta_generic_to_shared(to);
    int bytes = there ? BYTES : 0;
    if (BYTES == 16) {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
    } else {
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
    }
}

DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most PENDING groups of this thread are under way.
template <int PENDING> DEVICE void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }

// Loads four 8x8 matrices of 16-bit values; lane l gives the address of row l % 8 of matrix l / 8.
DEVICE void load_matrices(unsigned (&out)[4], const void *row) {
    unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(at)
                 : "memory");
}

// Adds the product of a 16x16 and a 16x8 matrix of bfloat16 to a 16x8 matrix of f32.
DEVICE void multiply_add(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif
