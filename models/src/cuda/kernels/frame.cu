// Pictures to planes of f32 RGB on 0..255 and back, resampling between, and the network's input from them.
//
// Compiled with SAMPLE (unsigned char or unsigned short) for `decode` and `encode`, ELEMENT for `pack_input`.
// The arithmetic is that of pixels/convert.rs and pixels/chroma.rs, sample by sample. Grids: width / 32, height / 8, images
// (or planes of images); blocks of 32 x 8.

#ifdef SAMPLE

struct Tap {
    int first, second;
    float weight;
};

// Which two chroma samples give the value at luma position `at`.
DEVICE Tap upsample_tap(int at, int length, float factor, float offset) {
    float position = ((float)at - offset) / factor;
    float below = floorf(position);
    Tap tap = {clamped((int)below, length), clamped((int)below + 1, length), position - below};
    return tap;
}

DEVICE float blended(float first, float second, float weight) { return first + (second - first) * weight; }

// pointers: planes, rgb · ints: width, height, chroma width, chroma height, samples of a picture, 1 for luma and chroma, planes
// floats: matrix by rows (9), zero and step of luma, zero and step of chroma, factor and offset across, factor and offset down
KERNEL(decode) {
    int x = blockIdx.x * 32 + threadIdx.x % 32, y = blockIdx.y * 8 + threadIdx.x / 32, image = blockIdx.z;
    int width = args.ints[0], height = args.ints[1], chroma_width = args.ints[2], chroma_height = args.ints[3];
    if (x >= width || y >= height) return;
    const SAMPLE *picture = (const SAMPLE *)args.pointers[0] + (long long)image * args.ints[4];
    const float *f = args.floats;
    long long pixels = (long long)width * height, at = (long long)y * width + x;
    float *rgb = (float *)args.pointers[1] + image * 3 * pixels + at;
    float values[3];
    values[0] = ((float)picture[at] - f[9]) * f[10];
    if (args.ints[5] == 0) {
        for (int plane = 0; plane < 3; plane++) {
            float value = args.ints[6] == 1 ? values[0] : ((float)picture[plane * pixels + at] - f[9]) * f[10];
            rgb[plane * pixels] = limited(value, 0.0f, 255.0f);
        }
        return;
    }
    Tap across = upsample_tap(x, chroma_width, f[13], f[14]), down = upsample_tap(y, chroma_height, f[15], f[16]);
    for (int plane = 0; plane < 2; plane++) {
        const SAMPLE *chroma = picture + pixels + (long long)plane * chroma_width * chroma_height;
        const SAMPLE *above = chroma + (long long)down.first * chroma_width;
        const SAMPLE *below = chroma + (long long)down.second * chroma_width;
        float left = (blended(above[across.first], below[across.first], down.weight) - f[11]) * f[12];
        float right = (blended(above[across.second], below[across.second], down.weight) - f[11]) * f[12];
        values[1 + plane] = blended(left, right, across.weight);
    }
    for (int plane = 0; plane < 3; plane++) {
        float value = f[plane * 3] * values[0] + f[plane * 3 + 1] * values[1] + f[plane * 3 + 2] * values[2];
        rgb[plane * pixels] = limited(value, 0.0f, 255.0f);
    }
}

// One plane of integer samples from RGB: weighted sum of the colours, filtered down to the plane's size, rounded half to even.
// pointers: rgb, planes · ints: rgb width, rgb height, picture width, picture height, plane width, plane height, samples of a
//   picture, offset of the plane, then across and down: factor, first tap, taps
// floats: weights of red, green and blue, zero code, codes a value, largest code, filter across (7), filter down (7)
KERNEL(encode) {
    int x = blockIdx.x * 32 + threadIdx.x % 32, y = blockIdx.y * 8 + threadIdx.x / 32, image = blockIdx.z;
    const int *n = args.ints;
    const float *f = args.floats;
    if (x >= n[4] || y >= n[5]) return;
    long long pixels = (long long)n[0] * n[1];
    const float *rgb = (const float *)args.pointers[0] + image * 3 * pixels;
    float value = 0.0f;
    for (int row = 0; row < n[13]; row++) {
        const float *line = rgb + (long long)clamped(y * n[11] + n[12] + row, n[3]) * n[0];
        float sum = 0.0f;
        for (int column = 0; column < n[10]; column++) {
            const float *from = line + clamped(x * n[8] + n[9] + column, n[2]);
            float grey = limited(from[0], 0.0f, 255.0f) * f[0] + limited(from[pixels], 0.0f, 255.0f) * f[1] +
                         limited(from[2 * pixels], 0.0f, 255.0f) * f[2];
            sum += grey * f[6 + column];
        }
        value += sum * f[13 + row];
    }
    float code = limited(value * f[4] + f[3], 0.0f, f[5]);
    ((SAMPLE *)args.pointers[1])[(long long)image * n[6] + n[7] + (long long)y * n[4] + x] = (SAMPLE)rintf(code);
}

#endif

#ifdef ELEMENT

// Planes of RGB to pixels of four values, the fourth zero, centred: the first norm takes any constant out again, and
// bfloat16 is twice as fine around zero.
// pointers: rgb, pixels · ints: width, height
KERNEL(pack_input) {
    int x = blockIdx.x * 32 + threadIdx.x % 32, y = blockIdx.y * 8 + threadIdx.x / 32, image = blockIdx.z;
    int width = args.ints[0], height = args.ints[1];
    if (x >= width || y >= height) return;
    long long pixels = (long long)width * height, at = (long long)y * width + x;
    const float *rgb = (const float *)args.pointers[0] + image * 3 * pixels + at;
    struct alignas(8) {
        ELEMENT values[4];
    } out;
    for (int plane = 0; plane < 3; plane++) narrow(rgb[plane * pixels] - 127.5f, out.values[plane]);
    narrow(0.0f, out.values[3]);
    ((decltype(out) *)args.pointers[1])[image * pixels + at] = out;
}

#endif

// One axis of a resampling: every output is a weighted sum of neighbouring inputs.
// pointers: planes, planes, first input of every output, weights · ints: width and height of the output, values from one input
//   plane to the next, from one input row to the next, from one input sample of the axis to the next, 1 for the axis down, taps
KERNEL(resample) {
    int x = blockIdx.x * 32 + threadIdx.x % 32, y = blockIdx.y * 8 + threadIdx.x / 32;
    const int *n = args.ints;
    if (x >= n[0] || y >= n[1]) return;
    int at = n[5] ? y : x;
    const float *from = (const float *)args.pointers[0] + (long long)blockIdx.z * n[2];
    from += n[5] ? x : (long long)y * n[3];
    from += (long long)((const int *)args.pointers[2])[at] * n[4];
    const float *weights = (const float *)args.pointers[3] + (long long)at * n[6];
    float sum = 0.0f;
    for (int tap = 0; tap < n[6]; tap++) sum += weights[tap] * from[(long long)tap * n[4]];
    ((float *)args.pointers[1])[((long long)blockIdx.z * n[1] + y) * n[0] + x] = sum;
}
