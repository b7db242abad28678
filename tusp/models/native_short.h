// Convolutions of five taps with fewer products: 8 for every 4 outputs instead of 20.
//
// Four outputs d samples apart, y_i = sum_k w_k x_{i+k}, are the middle of a product of polynomials, which is known from
// its values at 8 points (Toom 1963, Cook 1966; for convolutions Winograd 1980): 0, 1, -1, 2, -2, 1/2, -1/2 and infinity.
// So the inputs are brought to these points, the points are multiplied by the weights' (summed over the channels, which is
// where the time goes), and the outputs are brought back. In float32 the rounding error is about twice the direct form's.

#pragma once

#include "native_parts.h"

namespace {

constexpr int POINTS = 8, AT_ONCE = 4, SHORT = 5;
constexpr int64_t STEP = AT_ONCE * WIDE;  // a tile's samples are a multiple of this

// The even and the odd values of two vectors, and both put back.
#ifdef __AVX512F__
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#define LOW 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#else
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#define LOW 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH 4, 12, 5, 13, 6, 14, 7, 15
#endif
#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, ivec{__VA_ARGS__})
#endif

// v[q] of Q vectors that lie one after the other becomes every Q-th value from q on.
template <int Q>
inline void apart(vec *v) {
    vec even[Q / 2], odd[Q / 2];
#pragma GCC unroll 8
    for (int i = 0; i < Q / 2; i++) {
        even[i] = SHUFFLE(v[2 * i], v[2 * i + 1], EVEN);
        odd[i] = SHUFFLE(v[2 * i], v[2 * i + 1], ODD);
    }
    if constexpr (Q > 2) {
        apart<Q / 2>(even);
        apart<Q / 2>(odd);
    }
#pragma GCC unroll 8
    for (int i = 0; i < Q / 2; i++) {
        v[2 * i] = even[i];
        v[2 * i + 1] = odd[i];
    }
}
template <int Q>
inline void together(vec *v) {
    vec even[Q / 2], odd[Q / 2];
#pragma GCC unroll 8
    for (int i = 0; i < Q / 2; i++) {
        even[i] = v[2 * i];
        odd[i] = v[2 * i + 1];
    }
    if constexpr (Q > 2) {
        together<Q / 2>(even);
        together<Q / 2>(odd);
    }
#pragma GCC unroll 8
    for (int i = 0; i < Q / 2; i++) {
        v[2 * i] = SHUFFLE(even[i], odd[i], LOW);
        v[2 * i + 1] = SHUFFLE(even[i], odd[i], HIGH);
    }
}

// Weights of one output and input at a point.
inline float at_point(const float *w, int point) {
    static const double place[] = {0, 1, -1, 2, -2, 0.5, -0.5}, factor[] = {0, -2 / 9., 1 / 90., 32 / 45.};
    if (point == 0) return w[0];
    if (point == POINTS - 1) return w[SHORT - 1];
    double total = 0;
    for (int k = SHORT - 1; k >= 0; k--) total = total * place[point] + w[k];
    return float(total * factor[(point + 1) / 2]);
}

// The values of every point for `count` (a multiple of LANES) outputs of each of D interleaved series.
// row: 4 D (count + LANES) samples, of which 4 D (count + 1) matter; to[point * stride + series * count + n].
template <int D>
void to_points(const float *row, int64_t count, float *phases, float *to, int64_t stride) {
    constexpr int Q = AT_ONCE * D;
    const int64_t phase = count + LANES;
    for (int64_t n = 0; n < count + 1; n += LANES) {
        vec v[Q];
#pragma GCC unroll 8
        for (int q = 0; q < Q; q++) v[q] = load(row + n * Q + q * LANES);
        apart<Q>(v);
#pragma GCC unroll 8
        for (int q = 0; q < Q; q++) store(phases + q * phase + n, v[q]);
    }
    for (int p = 0; p < D; p++)
        for (int64_t n = 0; n < count; n += LANES) {
            vec d[POINTS];
#pragma GCC unroll 8
            for (int j = 0; j < POINTS; j++) d[j] = load(phases + (j % AT_ONCE * D + p) * phase + n + j / AT_ONCE);
            float *out = to + p * count + n;
            store(out, d[0] - d[6] + 5.25f * (d[4] - d[2]));
            vec even = d[2] + d[6] - 4.25f * d[4], odd = d[1] + d[5] - 4.25f * d[3];
            store(out + stride, even + odd);
            store(out + 2 * stride, even - odd);
            even = 0.25f * d[2] - 1.25f * d[4] + d[6], odd = 0.5f * d[1] - 2.5f * d[3] + 2.0f * d[5];
            store(out + 3 * stride, even + odd);
            store(out + 4 * stride, even - odd);
            even = 4.0f * d[2] - 5.0f * d[4] + d[6], odd = 2.0f * d[1] - 2.5f * d[3] + 0.5f * d[5];
            store(out + 5 * stride, even + odd);
            store(out + 6 * stride, even - odd);
            store(out + 7 * stride, d[7] - d[1] + 5.25f * (d[3] - d[5]));
        }
}

// Back from the points: 4 D count samples of one output.
template <int D>
void from_points(const float *from, int64_t stride, int64_t count, float *row) {
    constexpr int Q = AT_ONCE * D;
    for (int64_t n = 0; n < count; n += LANES) {
        vec y[Q];
#pragma GCC unroll 2
        for (int p = 0; p < D; p++) {
            vec m[POINTS];
#pragma GCC unroll 8
            for (int j = 0; j < POINTS; j++) m[j] = load(from + j * stride + p * count + n);
            const vec s1 = m[1] + m[2], d1 = m[1] - m[2], s2 = m[3] + m[4], d2 = m[3] - m[4];
            const vec s3 = m[5] + m[6], d3 = m[5] - m[6];
            y[p] = m[0] + s1 + s2 + s3;
            y[p + D] = d1 + 2.0f * d2 + 0.5f * d3;
            y[p + 2 * D] = s1 + 4.0f * s2 + 0.25f * s3;
            y[p + 3 * D] = d1 + 8.0f * d2 + 0.125f * d3 + m[7];
        }
        together<Q>(y);
#pragma GCC unroll 8
        for (int q = 0; q < Q; q++) store(row + n * Q + q * LANES, y[q]);
    }
}

// A convolution [outputs][inputs][5] over tiles of at most `longest` samples.
struct Short {
    int64_t outputs, inputs, dilation, columns;
    std::vector<Packed> products;

    static bool suits(int64_t outputs, int64_t inputs, int64_t taps, int64_t dilation, int64_t samples, int64_t windows) {
        // Below so many channels bringing values to the points and back takes longer than it saves, and below so many
        // samples bringing the weights there does.
        return taps == SHORT && (dilation == 1 || dilation == 2) && std::min(inputs, outputs) >= 8 &&
               samples >= STEP && samples * windows >= 1024;
    }
    template <class Weight>
    Short(int64_t outputs, int64_t inputs, int64_t dilation, int64_t longest, Weight weight)
        : outputs(outputs), inputs(inputs), dilation(dilation), columns(up_to(longest, STEP) / AT_ONCE) {
        for (int point = 0; point < POINTS; point++)
            products.emplace_back(
                outputs, inputs,
                [&](int64_t m, int64_t i) {
                    float taps[SHORT];
                    for (int k = 0; k < SHORT; k++) taps[k] = weight(m, i, k);
                    return at_point(taps, point);
                },
                [&](int64_t i) { return i * point_stride() * POINTS; });
    }
    int64_t point_stride() const { return columns + LANES; }
    int64_t row_length() const { return AT_ONCE * (columns + dilation * LANES); }
    int64_t phases_length() const { return AT_ONCE * (columns + dilation * LANES); }
    int64_t points_length(int64_t channels) const { return channels * POINTS * point_stride(); }

    // One row of samples (`row_length`, beginning where the first tap of the first output lies) to the points.
    void put(const float *row, int64_t input, float *phases, float *points) const {
        float *to = points + input * POINTS * point_stride();
        dilation == 1 ? to_points<1>(row, columns, phases, to, point_stride())
                      : to_points<2>(row, columns / 2, phases, to, point_stride());
    }
    void apply(const float *points, float *made) const {
        for (int point = 0; point < POINTS; point++)
            products[point].apply(points + point * point_stride(), columns, made + point * point_stride(),
                                  POINTS * point_stride());
    }
    void take(const float *made, int64_t output, float *row) const {
        const float *from = made + output * POINTS * point_stride();
        dilation == 1 ? from_points<1>(from, point_stride(), columns, row)
                      : from_points<2>(from, point_stride(), columns / 2, row);
    }
};

}  // namespace
