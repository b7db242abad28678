// Vectors along time, small matrix products over shifted rows, and sharing tiles among threads: what native.cpp is made
// of. Written with the vectors that GCC and Clang know for any processor.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include <omp.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512F__
constexpr int LANES = 16, ROWS = 12;  // 24 of 32 registers hold sums
#else
constexpr int LANES = 8, ROWS = 6;  // 12 of 16
#endif
constexpr int WIDE = 2 * LANES;  // samples of one step of `product`
constexpr int GRADIENT = LANES == 16 ? 5 : 3;  // the block of `weight_product` is so many rows by so many terms
constexpr int64_t TILE = 1024;

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));

inline vec load(const float *from) {
    vec value;
    std::memcpy(&value, from, sizeof value);
    return value;
}
inline void store(float *to, vec value) { std::memcpy(to, &value, sizeof value); }
#ifdef __AVX512F__
inline float sum(vec value) { return _mm512_reduce_add_ps(reinterpret_cast<__m512>(value)); }
#else
inline float sum(vec value) {
    float lanes[LANES];
    store(lanes, value);
    for (int width = LANES / 2; width; width /= 2)
        for (int lane = 0; lane < width; lane++) lanes[lane] += lanes[lane + width];
    return lanes[0];
}
#endif

// e^x: x = n ln 2 + r, Taylor of degree 7 in r (relative error below 1e-7).
inline vec exponential(vec x) {
    const vec least = vec{} - 87.0f, most = vec{} + 88.0f;
    x = x < least ? least : x;
    x = x > most ? most : x;
    const vec magic = vec{} + 12582912.0f;
    vec n = (x * 1.44269504f + magic) - magic;
    vec r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    vec p = r * (1.0f / 5040) + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    ivec power = (__builtin_convertvector(n, ivec) + 127) << 23;
    vec two;
    std::memcpy(&two, &power, sizeof two);
    return p * two;
}
inline vec elu(vec z) { return z > 0.0f ? z : exponential(z) - 1.0f; }
inline vec elu_slope(vec e) { return e > 0.0f ? vec{} + 1.0f : e + 1.0f; }  // from ELU's own value
inline vec tanh_of(vec x) { return 1.0f - 2.0f / (exponential(x * 2.0f) + 1.0f); }

// out[m][t] = sum_k weights[k][m] * in[offset[k] + t] for M rows and two vectors of time.
template <int M>
void product(int64_t terms, const float *weights, const int64_t *offset, const float *in, float *out, int64_t stride) {
    vec a[M], b[M];
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) a[m] = b[m] = vec{};
    for (int64_t k = 0; k < terms; k++, weights += M) {
        const vec x = load(in + offset[k]), y = load(in + offset[k] + LANES);
#pragma GCC unroll 16
        for (int m = 0; m < M; m++) {
            a[m] += weights[m] * x;
            b[m] += weights[m] * y;
        }
    }
#pragma GCC unroll 16
    for (int m = 0; m < M; m++) {
        store(out + m * stride, a[m]);
        store(out + m * stride + LANES, b[m]);
    }
}
using Product = void (*)(int64_t, const float *, const int64_t *, const float *, float *, int64_t);
template <int... M>
Product choose(int rows, std::integer_sequence<int, M...>) {
    static const Product table[] = {product<M + 1>...};
    return table[rows - 1];
}

// gradient[m][k] += sum_t rows[m][t] * in[offset[k] + t] for M rows and K terms.
template <int M, int K>
void weight_product(int64_t length, const float *rows, int64_t stride, const float *in, const int64_t *offset,
                    float *gradient, int64_t terms) {
    vec total[M][K];
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 8
        for (int k = 0; k < K; k++) total[m][k] = vec{};
    for (int64_t t = 0; t < length; t += LANES) {
        vec x[K];
#pragma GCC unroll 8
        for (int k = 0; k < K; k++) x[k] = load(in + offset[k] + t);
#pragma GCC unroll 8
        for (int m = 0; m < M; m++) {
            const vec z = load(rows + m * stride + t);
#pragma GCC unroll 8
            for (int k = 0; k < K; k++) total[m][k] += z * x[k];
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; m++)
#pragma GCC unroll 8
        for (int k = 0; k < K; k++) gradient[m * terms + k] += sum(total[m][k]);
}
using WeightProduct = void (*)(int64_t, const float *, int64_t, const float *, const int64_t *, float *, int64_t);
template <int... MK>
WeightProduct choose_weight(int rows, int terms, std::integer_sequence<int, MK...>) {
    static const WeightProduct table[] = {weight_product<MK / GRADIENT + 1, MK % GRADIENT + 1>...};
    return table[(rows - 1) * GRADIENT + terms - 1];
}

// The i-th of the nearly equal parts of `total`, each at most `most`.
struct Split {
    int64_t total, parts;
    Split(int64_t total, int64_t most) : total(total), parts((total + most - 1) / most) {}
    int64_t start(int64_t part) const { return total * part / parts; }
    int size(int64_t part) const { return int(start(part + 1) - start(part)); }
};

// A matrix [rows][terms] packed for `product`, with where each term finds its input.
struct Packed {
    int64_t rows, terms;
    Split blocks;
    std::vector<float> weights;
    std::vector<int64_t> offset;
    template <class Weight, class Offset>
    Packed(int64_t rows, int64_t terms, Weight weight, Offset where)
        : rows(rows), terms(terms), blocks(rows, ROWS), weights(rows * terms), offset(terms) {
        for (int64_t k = 0; k < terms; k++) offset[k] = where(k);
        for (int64_t block = 0; block < blocks.parts; block++) {
            const int64_t first = blocks.start(block), size = blocks.size(block);
            float *to = weights.data() + first * terms;
            for (int64_t k = 0; k < terms; k++)
                for (int64_t m = 0; m < size; m++) to[k * size + m] = weight(first + m, k);
        }
    }
    // out[row][0..length) for all rows; length is rounded up to a multiple of WIDE.
    void apply(const float *in, int64_t length, float *out, int64_t stride) const {
        for (int64_t block = 0; block < blocks.parts; block++) {
            const int64_t first = blocks.start(block);
            const Product run = choose(blocks.size(block), std::make_integer_sequence<int, ROWS>{});
            for (int64_t t = 0; t < length; t += WIDE)
                run(terms, weights.data() + first * terms, offset.data(), in + t, out + first * stride + t, stride);
        }
    }
};

// gradient[row][k] += sum_t rows[row][t] * in[offset[k] + t].
void weight_gradient(int64_t count, int64_t length, const float *rows, int64_t stride, const float *in,
                     const std::vector<int64_t> &offset, float *gradient) {
    const int64_t terms = int64_t(offset.size());
    const Split by_row(count, GRADIENT), by_term(terms, GRADIENT);
    for (int64_t i = 0; i < by_row.parts; i++)
        for (int64_t j = 0; j < by_term.parts; j++) {
            const int64_t row = by_row.start(i), k = by_term.start(j);
            choose_weight(by_row.size(i), by_term.size(j), std::make_integer_sequence<int, GRADIENT * GRADIENT>{})(
                length, rows + row * stride, stride, in, offset.data() + k, gradient + row * terms + k, terms);
        }
}

int64_t up_to(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

float *scratch(int which, int64_t size) {
    static thread_local std::vector<float> kept[5];
    if (int64_t(kept[which].size()) < size + 16) kept[which].resize(size + 16);
    const auto address = reinterpret_cast<uintptr_t>(kept[which].data());
    return reinterpret_cast<float *>((address + 63) / 64 * 64);
}

struct Tiles {
    int64_t windows, samples, length, each;
    Tiles(int64_t windows, int64_t samples, int64_t most, int64_t multiple) : windows(windows), samples(samples) {
        each = std::max<int64_t>(1, (samples + most - 1) / most);
        length = up_to((samples + each - 1) / each, multiple);
        each = (samples + length - 1) / length;
    }
    int64_t count() const { return windows * each; }
};

// Calls work(tile, thread) for every tile, a contiguous share per thread.
template <class Work>
void share(int64_t count, int threads, Work work) {
#pragma omp parallel num_threads(threads)
    {
        const int64_t thread = omp_get_thread_num(), all = omp_get_num_threads();
        for (int64_t i = count * thread / all; i < count * (thread + 1) / all; i++) work(i, int(thread));
    }
}

// Sums of every thread, added in the order of the threads into `to`.
template <class Number>
struct Sums {
    int64_t size;
    std::vector<std::vector<Number>> parts;
    Sums(int64_t size, int threads) : size(size), parts(threads) {}
    Number *of(int thread) {
        if (parts[thread].empty()) parts[thread].assign(size, 0);
        return parts[thread].data();
    }
    template <class To>
    void into(To *to) const {
        for (int64_t i = 0; i < size; i++) {
            Number total = 0;
            for (const auto &part : parts)
                if (!part.empty()) total += part[i];
            to[i] = To(total);
        }
    }
};

}  // namespace
