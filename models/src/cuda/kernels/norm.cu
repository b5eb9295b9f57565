// Instance norm: moments of all tiles to one scale and shift a channel, and the pass that applies them.
//
// Compiled with ELEMENT, CHANNELS (stored, a multiple of 8) and, for `apply`, RELU and RESIDUAL (0 or 1).

#define LANES 8
#define PARTS 64

// Joins the tiles' moments of eight channels of one image. Two sums in double, each over a fixed share of the tiles and
// then over the shares as a fixed tree, so that nothing depends on timing.
// pointers: moments, scale and shift of the norm, affine · ints: tiles, phases, pixels of a phase, pixels of a tile, channels of meaning
// grid: CHANNELS / 8, images · block: 512
KERNEL(join_moments) {
    SHARED_MEMORY(memory);
    double *shares = (double *)memory;
    int tiles = args.ints[0], phases = args.ints[1], pixels = args.ints[2], tile_pixels = args.ints[3];
    int lane = threadIdx.x % LANES, part = threadIdx.x / LANES;
    int channel = blockIdx.x * LANES + lane, image = blockIdx.y, records = tiles * phases;
    const float *moments = (const float *)args.pointers[0] + (long long)image * records * 2 * CHANNELS;
    double total = (double)pixels * phases, mean = 0.0;
    for (int pass = 0; pass < 2; pass++) {
        double sum = 0.0;
        for (int record = part; record < records; record += PARTS) {
            int left = pixels - record % tiles * tile_pixels;
            double count = left < tile_pixels ? left : tile_pixels;
            const float *of = moments + (long long)record * 2 * CHANNELS + channel;
            double difference = (double)of[0] - mean;
            sum += pass == 0 ? count * of[0] : of[CHANNELS] + count * difference * difference;
        }
        shares[threadIdx.x] = sum;
        for (int reach = PARTS / 2; reach > 0; reach /= 2) {
            block_sync();
            if (part < reach) shares[threadIdx.x] += shares[threadIdx.x + reach * LANES];
        }
        block_sync();
        if (pass == 0) mean = shares[lane] / total;
        block_sync();
    }
    if (part == 0) {
        float *affine = (float *)args.pointers[3] + (long long)image * 2 * CHANNELS + channel;
        bool meant = channel < args.ints[4];
        double scale = meant ? ((const float *)args.pointers[1])[channel] / sqrt(shares[lane] / total + 1e-5) : 0.0;
        double shift = meant ? ((const float *)args.pointers[2])[channel] - mean * scale : 0.0;
        affine[0] = (float)scale;
        affine[CHANNELS] = (float)shift;
    }
}

#ifdef RELU

// Scales and shifts, takes the positive part, adds the residual: in place, eight channels a thread.
// pointers: activation, affine, residual · ints: vectors of an image · grid: vectors / 256, images · block: 256
KERNEL(apply) {
    int at = blockIdx.x * 256 + threadIdx.x, image = blockIdx.y, vectors = args.ints[0];
    if (at >= vectors) return;
    struct alignas(16) Eight {
        ELEMENT values[8];
    };
    Eight *activation = (Eight *)args.pointers[0] + (long long)image * vectors + at;
    const float *affine = (const float *)args.pointers[1] + (long long)image * 2 * CHANNELS + at % (CHANNELS / 8) * 8;
    Eight value = *activation;
    Eight kept = value;
    if (RESIDUAL) kept = ((const Eight *)args.pointers[2])[(long long)image * vectors + at];
    UNROLL
    for (int i = 0; i < 8; i++) {
        float out = widen(value.values[i]) * affine[i] + affine[CHANNELS + i];
        if (RELU) out = fmaxf(out, 0.0f);
        if (RESIDUAL) out += widen(kept.values[i]);
        narrow(out, value.values[i]);
    }
    *activation = value;
}

#endif
