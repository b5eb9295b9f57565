// Convolution as a matrix product whose left side is gathered from the activation while it is read: no copy with
// borders, none of columns. Pixels lie in rows, channels of a pixel side by side.
//
// A block computes TILE_M pixels by TILE_N channels. The sum runs over taps and channels in steps of TILE_K; STAGES steps
// are on their way from memory while one is multiplied on tensor cores. Sums are f32. The tile then goes through shared
// memory once more: its moments per channel are taken there in fixed order, and rows leave in whole vectors.
//
// Compiled once a layer shape, with these given:
//   ELEMENT        bf16 or float; PLAIN computes without tensor cores, for float and as a check
//   CHANNELS_IN    stored input channels: 4, or a multiple of 8
//   CHANNELS_OUT   stored output channels, a multiple of 8
//   TAPS, TAP_Y(t, phase), TAP_X(t, phase)   where a tap reads, relative to STRIDE times the pixel
//   PHASES         1, or 4 where every pixel gives 2x2 outputs (nearest-neighbour upsampling folded into the weights)
//   BORDER         `mirrored` or `clamped`
//   ROWS           columns of taps that are summed after the product; 0 for a plain convolution (see `emit_rows`)
//   TILE_M, TILE_N, TILE_K, STAGES, WARPS_M, WARPS_N
//
// pointers: input, weights, output, moments (or bias) · ints: height and width of the input, of the grid of pixels
// grid: tiles, channel tiles, images * PHASES

#define THREADS (32 * WARPS_M * WARPS_N)
// Channels that are copied at once: one tap of at most 8 channels.
#define GROUP (CHANNELS_IN < 8 ? CHANNELS_IN : 8)
#define GROUPS_PER_TAP (CHANNELS_IN / GROUP)
#define GROUPS_ALL (TAPS * GROUPS_PER_TAP)
#define GROUPS_PER_STEP (TILE_K / GROUP)
#define STEPS ((GROUPS_ALL + GROUPS_PER_STEP - 1) / GROUPS_PER_STEP)
#define SUM_PITCH (TILE_N + 8)
// With ROWS, neighbouring tiles overlap: the sum over columns needs ROWS - 1 pixels more than it gives.
#define TILE_ADVANCE (ROWS ? TILE_M - ROWS + 1 : TILE_M)

struct Place {
    int y, x;
    bool inside;
};

// Where row `m` of a tile lies in the grid of pixels.
DEVICE Place place_of(int tile, int m, int grid_height, int grid_width) {
    Place place;
    if (ROWS) {
        int tiles_per_row = (grid_width + TILE_ADVANCE - 1) / TILE_ADVANCE;
        place.y = tile / tiles_per_row;
        place.x = mirrored(tile % tiles_per_row * TILE_ADVANCE + m - ROWS / 2, grid_width);
        place.inside = true;
    } else {
        int pixel = tile * TILE_M + m;
        place.inside = pixel < grid_height * grid_width;
        pixel = place.inside ? pixel : 0;
        place.y = pixel / grid_width;
        place.x = pixel % grid_width;
    }
    return place;
}

// Offset of a group of channels in the input. `group` counts through all taps.
DEVICE long long group_offset(Place place, int group, int phase, int height, int width) {
    int tap = group / GROUPS_PER_TAP;
    int y = BORDER(place.y * STRIDE + TAP_Y(tap, phase), height);
    int x = BORDER(place.x * STRIDE + TAP_X(tap, phase), width);
    return ((long long)y * width + x) * CHANNELS_IN + group % GROUPS_PER_TAP * GROUP;
}

#ifndef PLAIN

#define ROW_BYTES (TILE_K * 2)
#define STAGE_BYTES ((TILE_M + TILE_N) * ROW_BYTES)
#define WARP_M (TILE_M / WARPS_M)
#define WARP_N (TILE_N / WARPS_N)
#define BLOCKS_M (WARP_M / 16)
#define BLOCKS_N (WARP_N / 8)
#define ROWS_PER_PASS (THREADS / GROUPS_PER_STEP)
#define PASSES (TILE_M / ROWS_PER_PASS)

// Place of 16 bytes in a row of shared memory: exchanged so that eight rows never meet in one bank.
DEVICE int swizzled(int row, int chunk) {
    int turn = ROW_BYTES == 128 ? row & 7 : (row >> 1) & 3;
    return row * ROW_BYTES + ((chunk ^ turn) << 4);
}

// Begins the copies of one step of the sum: gathered input rows, then weight rows as they were packed.
DEVICE void load_step(unsigned char *stage, const bf16 *input, const bf16 *weights, const Place (&places)[PASSES],
                      int step, int phase, int height, int width) {
    int lane = threadIdx.x % GROUPS_PER_STEP;
    int group = step * GROUPS_PER_STEP + lane;
    bool there = group < GROUPS_ALL;
    int byte = lane * GROUP * 2;
    UNROLL
    for (int pass = 0; pass < PASSES; pass++) {
        int row = threadIdx.x / GROUPS_PER_STEP + pass * ROWS_PER_PASS;
        bool wanted = there && places[pass].inside;
        long long offset = wanted ? group_offset(places[pass], group, phase, height, width) : 0;
        copy_async<GROUP * 2>(stage + swizzled(row, byte >> 4) + (byte & 15), input + offset, wanted);
    }
    const bf16 *block = weights + (long long)step * TILE_N * TILE_K;
    for (int at = threadIdx.x; at < TILE_N * TILE_K / 8; at += THREADS) {
        int row = at / (TILE_K / 8), chunk = at % (TILE_K / 8);
        copy_async<16>(stage + TILE_M * ROW_BYTES + swizzled(row, chunk), block + at * 8, true);
    }
}

// Multiplies the step that lies in `stage` into the warp's sums.
DEVICE void multiply_step(float (&sums)[BLOCKS_M][BLOCKS_N][4], const unsigned char *stage, int warp_m, int warp_n) {
    int lane = threadIdx.x % 32;
    UNROLL
    for (int k = 0; k < TILE_K / 16; k++) {
        unsigned left[BLOCKS_M][4], right[BLOCKS_N / 2][4];
        UNROLL
        for (int block = 0; block < BLOCKS_M; block++) {
            int row = warp_m * WARP_M + block * 16 + lane % 16;
            load_matrices(left[block], stage + swizzled(row, 2 * k + lane / 16));
        }
        UNROLL
        for (int pair = 0; pair < BLOCKS_N / 2; pair++) {
            int row = warp_n * WARP_N + pair * 16 + lane % 8 + lane / 16 * 8;
            load_matrices(right[pair], stage + TILE_M * ROW_BYTES + swizzled(row, 2 * k + lane / 8 % 2));
        }
        UNROLL
        for (int m = 0; m < BLOCKS_M; m++) {
            UNROLL
            for (int n = 0; n < BLOCKS_N; n++) {
                multiply_add(sums[m][n], left[m], right[n / 2][n % 2 * 2], right[n / 2][n % 2 * 2 + 1]);
            }
        }
    }
}

// Leaves the tile's sums in `tile`, TILE_M rows of SUM_PITCH.
DEVICE void compute(float *tile, unsigned char *stages, const bf16 *input, const bf16 *weights, int tile_index, int phase,
                    int height, int width, int grid_height, int grid_width) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int warp_m = warp % WARPS_M, warp_n = warp / WARPS_M;
    Place places[PASSES];
    UNROLL
    for (int pass = 0; pass < PASSES; pass++) {
        int row = threadIdx.x / GROUPS_PER_STEP + pass * ROWS_PER_PASS;
        places[pass] = place_of(tile_index, row, grid_height, grid_width);
    }
    float sums[BLOCKS_M][BLOCKS_N][4];
    UNROLL
    for (int m = 0; m < BLOCKS_M; m++) {
        UNROLL
        for (int n = 0; n < BLOCKS_N; n++) {
            UNROLL
            for (int i = 0; i < 4; i++) sums[m][n][i] = 0.0f;
        }
    }
    UNROLL
    for (int step = 0; step < STAGES - 1; step++) {
        if (step < STEPS) load_step(stages + step * STAGE_BYTES, input, weights, places, step, phase, height, width);
        copy_commit();
    }
    for (int step = 0; step < STEPS; step++) {
        copy_wait<STAGES - 2>();
        // Also tells that every warp is done with the stage that is filled next.
        block_sync();
        int next = step + STAGES - 1;
        if (next < STEPS) {
            load_step(stages + next % STAGES * STAGE_BYTES, input, weights, places, next, phase, height, width);
        }
        copy_commit();
        multiply_step(sums, stages + step % STAGES * STAGE_BYTES, warp_m, warp_n);
    }
    copy_wait<0>();
    block_sync();
    UNROLL
    for (int m = 0; m < BLOCKS_M; m++) {
        UNROLL
        for (int n = 0; n < BLOCKS_N; n++) {
            float *to = tile + (warp_m * WARP_M + m * 16 + lane / 4) * SUM_PITCH + warp_n * WARP_N + n * 8 + lane % 4 * 2;
            to[0] = sums[m][n][0];
            to[1] = sums[m][n][1];
            to[8 * SUM_PITCH] = sums[m][n][2];
            to[8 * SUM_PITCH + 1] = sums[m][n][3];
        }
    }
}

#else

// The same sums value by value, from the same packed weights.
DEVICE void compute(float *tile, unsigned char *, const ELEMENT *input, const ELEMENT *weights, int tile_index, int phase,
                    int height, int width, int grid_height, int grid_width) {
    for (int at = threadIdx.x; at < TILE_M * TILE_N; at += THREADS) {
        int m = at / TILE_N, n = at % TILE_N;
        Place place = place_of(tile_index, m, grid_height, grid_width);
        float sum = 0.0f;
        for (int group = 0; place.inside && group < GROUPS_ALL; group++) {
            const ELEMENT *from = input + group_offset(place, group, phase, height, width);
            int step = group / GROUPS_PER_STEP, lane = group % GROUPS_PER_STEP;
            const ELEMENT *weight = weights + ((long long)step * TILE_N + n) * TILE_K + lane * GROUP;
            for (int c = 0; c < GROUP; c++) sum += widen(from[c]) * widen(weight[c]);
        }
        tile[m * SUM_PITCH + n] = sum;
    }
}

#endif

#if ROWS == 0

// Mean and sum of squared differences to it, per channel over the tile's pixels. Sums run down the rows in parts of
// fixed length that are joined in order; they are taken about the first pixel, so that flat pictures keep their small variance.
#define PARTS (THREADS / TILE_N > 1 ? THREADS / TILE_N : 1)
DEVICE void emit_moments(const float *tile, float *scratch, float *moments, int rows, int channel_base) {
    for (int at = threadIdx.x; at < TILE_N * PARTS; at += THREADS) {
        int n = at % TILE_N, part = at / TILE_N;
        float shift = tile[n], sum = 0.0f, squares = 0.0f;
        int end = (part + 1) * (TILE_M / PARTS);
        for (int m = part * (TILE_M / PARTS); m < end && m < rows; m++) {
            float difference = tile[m * SUM_PITCH + n] - shift;
            sum += difference;
            squares += difference * difference;
        }
        scratch[(part * 2) * TILE_N + n] = sum;
        scratch[(part * 2 + 1) * TILE_N + n] = squares;
    }
    block_sync();
    for (int n = threadIdx.x; n < TILE_N; n += THREADS) {
        if (channel_base + n >= CHANNELS_OUT) continue;
        float sum = 0.0f, squares = 0.0f;
        for (int part = 0; part < PARTS; part++) {
            sum += scratch[(part * 2) * TILE_N + n];
            squares += scratch[(part * 2 + 1) * TILE_N + n];
        }
        moments[channel_base + n] = tile[n] + sum / rows;
        moments[CHANNELS_OUT + channel_base + n] = fmaxf(squares - sum * sum / rows, 0.0f);
    }
}

DEVICE void emit_pixels(const float *tile, ELEMENT *output, int tile_index, int phase, int channel_base, int grid_height,
                        int grid_width) {
    const int vectors = TILE_N / 8;
    for (int at = threadIdx.x; at < TILE_M * vectors; at += THREADS) {
        int m = at / vectors, n = at % vectors * 8;
        Place place = place_of(tile_index, m, grid_height, grid_width);
        if (!place.inside || channel_base + n >= CHANNELS_OUT) continue;
        long long pixel = (long long)place.y * grid_width + place.x;
        if (PHASES == 4) pixel = (2ll * place.y + phase / 2) * (2 * grid_width) + 2 * place.x + phase % 2;
        struct alignas(16) {
            ELEMENT values[8];
        } out;
        UNROLL
        for (int i = 0; i < 8; i++) narrow(tile[m * SUM_PITCH + n + i], out.values[i]);
        *(decltype(out) *)(output + pixel * CHANNELS_OUT + channel_base + n) = out;
    }
}

#else

// The last layer: the product gave, for each pixel, what it adds to three planes in each of ROWS columns; here every
// output pixel gathers its ROWS neighbours. So three outputs fill a tile of 32 columns instead of leaving most idle.
DEVICE void emit_rows(const float *tile, const float *bias, float *output, int tile_index, int grid_height, int grid_width) {
    int tiles_per_row = (grid_width + TILE_ADVANCE - 1) / TILE_ADVANCE;
    int y = tile_index / tiles_per_row, x0 = tile_index % tiles_per_row * TILE_ADVANCE;
    for (int at = threadIdx.x; at < 3 * TILE_ADVANCE; at += THREADS) {
        int plane = at / TILE_ADVANCE, m = at % TILE_ADVANCE;
        if (x0 + m >= grid_width) continue;
        float sum = bias[plane];
        UNROLL
        for (int column = 0; column < ROWS; column++) sum += tile[(m + column) * SUM_PITCH + column * 3 + plane];
        output[((long long)plane * grid_height + y) * grid_width + x0 + m] = sum;
    }
}

#endif

KERNEL_TWICE(conv, THREADS) {
    SHARED_MEMORY(memory);
    int height = args.ints[0], width = args.ints[1], grid_height = args.ints[2], grid_width = args.ints[3];
    int tile_index = blockIdx.x;
    int image = blockIdx.z / PHASES, phase = blockIdx.z % PHASES;
    const ELEMENT *input = (const ELEMENT *)args.pointers[0] + (long long)image * height * width * CHANNELS_IN;
    const ELEMENT *weights = (const ELEMENT *)args.pointers[1];
    weights += (long long)(phase * gridDim.y + blockIdx.y) * STEPS * TILE_N * TILE_K;
    float *tile = (float *)memory;
    compute(tile, memory, input, weights, tile_index, phase, height, width, grid_height, grid_width);
    block_sync();
#if ROWS == 0
    long long outputs = (long long)grid_height * grid_width * PHASES * CHANNELS_OUT;
    ELEMENT *output = (ELEMENT *)args.pointers[2] + image * outputs;
    long long record = ((long long)image * PHASES + phase) * gridDim.x + tile_index;
    float *moments = (float *)args.pointers[3] + record * 2 * CHANNELS_OUT;
    int left = grid_height * grid_width - tile_index * TILE_M;
    emit_pixels(tile, output, tile_index, phase, blockIdx.y * TILE_N, grid_height, grid_width);
    emit_moments(tile, tile + TILE_M * SUM_PITCH, moments, left < TILE_M ? left : TILE_M, blockIdx.y * TILE_N);
#else
    float *output = (float *)args.pointers[2] + (long long)image * 3 * grid_height * grid_width;
    emit_rows(tile, (const float *)args.pointers[3], output, tile_index, grid_height, grid_width);
#endif
}
