// The blocks of the network for processors: each is one trip over memory, tile by tile, with everything between in cache.
//
// Tensors are float32 [windows, channels, samples], contiguous. Vectors run along time, so that no lane is wasted
// whatever the number of channels. Work is cut into tiles; every thread takes a contiguous share of them and keeps sums
// of its own, which are added in the order of the threads: the same number of threads gives the same bits.
//
// "Stored" values are those after ELU and before batch norm. Whoever reads them applies the batch norm as scale and
// shift per channel while copying a tile, so the normalised tensor never exists in memory.

#include "native_parts.h"
#include "native_short.h"

extern "C" {

// One tensor that a block reads: values [windows, channels, samples], and scale and shift [channels] or null.
struct Source {
    const float *values;
    const float *scale;
    const float *shift;
    int64_t channels;
    float *gradient;        // of the values; null where none is wanted
    double *scale_gradient;  // [channels, 2]: of scale and of shift; null like scale
};
}

namespace {

// One normalised row of a source over [from, from + length), zero outside the samples; the rest up to `stride` is zero too.
void copy_row(const Source &source, int64_t window, int64_t c, int64_t samples, int64_t from, int64_t length, float *to,
              int64_t stride) {
    const int64_t first = std::max<int64_t>(from, 0), last = std::min(from + length, samples);
    const float *row = source.values + (window * source.channels + c) * samples;
    int64_t t = first - from;
    std::fill(to, to + std::max<int64_t>(t, 0), 0.0f);
    const int64_t end = std::max(last - from, t);
    if (source.scale) {
        const float scale = source.scale[c], shift = source.shift[c];
        for (; t + LANES <= end; t += LANES) store(to + t, load(row + from + t) * scale + shift);
        for (; t < end; t++) to[t] = row[from + t] * scale + shift;
    } else if (end > t) {
        std::memcpy(to + t, row + from + t, (end - t) * sizeof(float));
    }
    std::fill(to + end, to + stride, 0.0f);
}

// All of its rows, `stride` apart.
void copy_rows(const Source &source, int64_t window, int64_t samples, int64_t from, int64_t length, float *to,
               int64_t stride) {
    for (int64_t c = 0; c < source.channels; c++) copy_row(source, window, c, samples, from, length, to + c * stride, stride);
}

// ELU of row + bias into `to`, its sum and its sum of squares added to `sums`.
void finish_row(const float *row, float bias, int64_t length, float *to, double *sums) {
    vec total{}, squares{};
    int64_t t = 0;
    for (; t + LANES <= length; t += LANES) {
        const vec e = elu(load(row + t) + bias);
        store(to + t, e);
        total += e;
        squares += e * e;
    }
    if (t < length) {
        vec e = elu(load(row + t) + bias);
        float rest[LANES];
        store(rest, e);
        for (int lane = int(length - t); lane < LANES; lane++) rest[lane] = 0;
        std::memcpy(to + t, rest, (length - t) * sizeof(float));
        e = load(rest);
        total += e;
        squares += e * e;
    }
    sums[0] += sum(total);
    sums[1] += sum(squares);
}

// What a block keeps for backward and what comes back to it.
struct Back {
    const float *gradient, *values;  // of the stored output; the stored output
    const double *sum_gradient;       // [windows, channels, 2] of the sums and sums of squares; null for none
    int64_t channels, samples;

    // Gradient before ELU of one row over [from, from + length), zero outside the samples.
    void row(int64_t window, int64_t c, int64_t from, int64_t length, float *to) const {
        const int64_t at = window * channels + c;
        const float *g = gradient + at * samples, *e = values + at * samples;
        const float constant = sum_gradient ? float(sum_gradient[at * 2]) : 0;
        const float slope = sum_gradient ? float(2 * sum_gradient[at * 2 + 1]) : 0;
        const int64_t first = std::max<int64_t>(from, 0), end = std::min(from + length, samples);
        int64_t t = std::min(first, from + length);
        std::fill(to, to + (t - from), 0.0f);
        for (; t + LANES <= end; t += LANES) {
            const vec value = load(e + t);
            store(to + t - from, (load(g + t) + constant + value * slope) * elu_slope(value));
        }
        for (; t < end; t++) to[t - from] = (g[t] + constant + e[t] * slope) * (e[t] > 0 ? 1 : e[t] + 1);
        std::fill(to + std::max(t - from, int64_t(0)), to + length, 0.0f);
    }
};

// Writes a source's gradient from the gradient of its normalised rows, and adds that of scale and shift to `sums`.
void give_back(const Source &source, const float *rows, int64_t stride, int64_t window, int64_t samples, int64_t from,
               int64_t length, double *sums) {
    for (int64_t c = 0; c < source.channels; c++, rows += stride) {
        const int64_t at = (window * source.channels + c) * samples + from;
        float *to = source.gradient + at;
        if (!source.scale) {
            std::memcpy(to, rows, length * sizeof(float));
            continue;
        }
        const float *e = source.values + at;
        const float scale = source.scale[c];
        vec by_scale{}, by_shift{};
        int64_t t = 0;
        for (; t + LANES <= length; t += LANES) {
            const vec u = load(rows + t);
            store(to + t, u * scale);
            by_scale += u * load(e + t);
            by_shift += u;
        }
        double rest_scale = 0, rest_shift = 0;
        for (; t < length; t++) {
            to[t] = rows[t] * scale;
            rest_scale += rows[t] * e[t];
            rest_shift += rows[t];
        }
        sums[c * 2] += sum(by_scale) + rest_scale;
        sums[c * 2 + 1] += sum(by_shift) + rest_shift;
    }
}

int64_t channels_of(const Source *sources, int64_t count) {
    int64_t total = 0;
    for (int64_t i = 0; i < count; i++) total += sources[i].channels;
    return total;
}

}  // namespace

extern "C" {

int tusp_lanes() { return LANES; }

// Convolution of the joined sources with weight [outputs, inputs, taps] and bias, then ELU.
// out [windows, outputs, samples]; sums [windows, outputs, 2]. `fewer`: with fewer products where that pays.
void tusp_conv_forward(const Source *sources, int64_t n_sources, int64_t windows, int64_t samples, const float *weight,
                       const float *bias, int64_t outputs, int64_t taps, int64_t dilation, int64_t left, float *out,
                       double *sums, int fewer, int threads) {
    const int64_t inputs = channels_of(sources, n_sources), reach = (taps - 1) * dilation;
    Sums<double> totals(windows * outputs * 2, threads);
    if (fewer && Short::suits(outputs, inputs, taps, dilation, samples, windows)) {
        const Tiles tiles(windows, samples, TILE, STEP);
        const Short convolve(outputs, inputs, dilation, tiles.length,
                             [&](int64_t m, int64_t i, int64_t k) { return weight[(m * inputs + i) * SHORT + k]; });
        share(tiles.count(), threads, [&](int64_t tile, int thread) {
            const int64_t window = tile / tiles.each, from = tile % tiles.each * tiles.length;
            const int64_t length = std::min(tiles.length, samples - from);
            float *points = scratch(0, convolve.points_length(inputs)), *made = scratch(1, convolve.points_length(outputs));
            float *row = scratch(2, convolve.row_length()), *phases = scratch(3, convolve.phases_length());
            int64_t input = 0;
            for (int64_t i = 0; i < n_sources; i++)
                for (int64_t c = 0; c < sources[i].channels; c++) {
                    copy_row(sources[i], window, c, samples, from - left, length + reach, row, convolve.row_length());
                    convolve.put(row, input++, phases, points);
                }
            convolve.apply(points, made);
            double *own = totals.of(thread) + window * outputs * 2;
            for (int64_t m = 0; m < outputs; m++) {
                convolve.take(made, m, row);
                finish_row(row, bias[m], length, out + (window * outputs + m) * samples + from, own + m * 2);
            }
        });
        totals.into(sums);
        return;
    }
    const Tiles tiles(windows, samples, TILE, WIDE);
    const int64_t stride = up_to(tiles.length + reach, WIDE) + LANES, made_stride = tiles.length + LANES;
    const Packed packed(
        outputs, inputs * taps, [&](int64_t m, int64_t k) { return weight[m * inputs * taps + k]; },
        [&](int64_t k) { return k / taps * stride + k % taps * dilation; });
    share(tiles.count(), threads, [&](int64_t tile, int thread) {
        const int64_t window = tile / tiles.each, from = tile % tiles.each * tiles.length;
        const int64_t length = std::min(tiles.length, samples - from);
        float *in = scratch(0, inputs * stride), *made = scratch(1, outputs * made_stride);
        int64_t first = 0;
        for (int64_t i = 0; i < n_sources; first += sources[i++].channels)
            copy_rows(sources[i], window, samples, from - left, length + reach, in + first * stride, stride);
        packed.apply(in, length, made, made_stride);
        double *own = totals.of(thread) + window * outputs * 2;
        for (int64_t m = 0; m < outputs; m++)
            finish_row(made + m * made_stride, bias[m], length, out + (window * outputs + m) * samples + from,
                       own + m * 2);
    });
    totals.into(sums);
}

// Two such convolutions, one after the other, when the batch norm between them (`scale`, `shift` [outputs]) is known
// beforehand: what lies between them exists only tile by tile. `into` is the first weight, `weight` the second
// [outputs, outputs, 5]. Returns 0, and has done nothing, where two calls are better.
int tusp_pair_forward(const Source *sources, int64_t n_sources, int64_t windows, int64_t samples, const float *into,
                      const float *into_bias, const float *scale, const float *shift, const float *weight,
                      const float *bias, int64_t outputs, int64_t taps, int64_t dilation, int64_t left, float *out,
                      double *sums, int threads) {
    const int64_t inputs = channels_of(sources, n_sources), reach = (taps - 1) * dilation;
    // The weights of wide levels fill the cache that the tiles would need.
    if (!Short::suits(outputs, outputs, taps, dilation, samples, windows) || outputs > 64 || samples < 2 * TILE) return 0;
    const Tiles tiles(windows, samples, TILE - LANES, LANES);  // leaves room for the reach, see `suits`
    const bool direct = !Short::suits(outputs, inputs, taps, dilation, samples, windows);
    const Short second(outputs, outputs, dilation, tiles.length + reach,
                       [&](int64_t m, int64_t i, int64_t k) { return weight[(m * outputs + i) * SHORT + k]; });
    const Short first(direct ? 0 : outputs, inputs, dilation, tiles.length + reach,
                      [&](int64_t m, int64_t i, int64_t k) { return into[(m * inputs + i) * SHORT + k]; });
    const int64_t stride = up_to(tiles.length + 2 * reach, WIDE) + LANES, made_stride = first.row_length();
    const Packed packed(
        direct ? outputs : 0, inputs * taps, [&](int64_t m, int64_t k) { return into[m * inputs * taps + k]; },
        [&](int64_t k) { return k / taps * stride + k % taps * dilation; });
    Sums<double> totals(windows * outputs * 2, threads);
    share(tiles.count(), threads, [&](int64_t tile, int thread) {
        const int64_t window = tile / tiles.each, from = tile % tiles.each * tiles.length;
        const int64_t length = std::min(tiles.length, samples - from), between = length + reach;
        float *points = scratch(0, direct ? inputs * stride : first.points_length(inputs));
        float *made = scratch(1, std::max(second.points_length(outputs), outputs * made_stride));
        float *row = scratch(2, second.row_length()), *phases = scratch(3, second.phases_length());
        float *middle = scratch(4, second.points_length(outputs));
        int64_t input = 0;
        for (int64_t i = 0; i < n_sources; i++)
            for (int64_t c = 0; c < sources[i].channels; c++, input++)
                if (direct) {
                    copy_row(sources[i], window, c, samples, from - 2 * left, between + reach, points + input * stride, stride);
                } else {
                    copy_row(sources[i], window, c, samples, from - 2 * left, between + reach, row, first.row_length());
                    first.put(row, input, phases, points);
                }
        direct ? packed.apply(points, between, made, made_stride) : first.apply(points, made);
        const int64_t start = std::max<int64_t>(left - from, 0), end = std::min(between, samples - from + left);
        for (int64_t m = 0; m < outputs; m++) {
            float *here = direct ? made + m * made_stride : row;
            if (!direct) first.take(made, m, row);
            for (int64_t t = 0; t < between; t += LANES)
                store(here + t, elu(load(here + t) + into_bias[m]) * scale[m] + shift[m]);
            std::fill(here, here + start, 0.0f);
            std::fill(here + end, here + second.row_length(), 0.0f);
            second.put(here, m, phases, middle);
        }
        second.apply(middle, made);
        double *own = totals.of(thread) + window * outputs * 2;
        for (int64_t m = 0; m < outputs; m++) {
            second.take(made, m, row);
            finish_row(row, bias[m], length, out + (window * outputs + m) * samples + from, own + m * 2);
        }
    });
    totals.into(sums);
    return 1;
}

// weight_gradient [outputs, inputs, taps], bias_gradient [outputs]; gradients of the sources where they are wanted.
void tusp_conv_backward(const Source *sources, int64_t n_sources, int64_t windows, int64_t samples,
                        const float *weight, int64_t outputs, int64_t taps, int64_t dilation, int64_t left,
                        const float *gradient, const float *values, const double *sum_gradient, float *weight_gradient_to,
                        float *bias_gradient, int threads) {
    const int64_t inputs = channels_of(sources, n_sources), reach = (taps - 1) * dilation;
    const int64_t ahead = reach - left;           // so many samples before the tile are needed of every output
    const int64_t start = up_to(ahead, LANES);  // the tile begins there in a row, aligned
    const bool further = sources[0].gradient != nullptr;
    const Tiles tiles(windows, samples, TILE, WIDE);
    const int64_t stride = up_to(start + tiles.length + reach, WIDE) + LANES, made_stride = tiles.length + LANES;
    const Back back{gradient, values, sum_gradient, outputs, samples};
    std::vector<int64_t> offset(inputs * taps);
    for (int64_t k = 0; k < inputs * taps; k++) offset[k] = k / taps * stride + k % taps * dilation;
    const Packed packed(
        further ? inputs : 0, outputs * taps,
        [&](int64_t i, int64_t k) { return weight[(k / taps * inputs + i) * taps + k % taps]; },
        [&](int64_t k) { return k / taps * stride + start - ahead + (taps - 1 - k % taps) * dilation; });
    Sums<float> weights(outputs * inputs * taps, threads);
    Sums<double> biases(outputs, threads), scales(inputs * 2, threads);
    share(tiles.count(), threads, [&](int64_t tile, int thread) {
        const int64_t window = tile / tiles.each, from = tile % tiles.each * tiles.length;
        const int64_t length = std::min(tiles.length, samples - from);
        float *in = scratch(0, inputs * stride), *made = scratch(1, inputs * made_stride);
        float *before = scratch(2, outputs * stride);
        int64_t first = 0;
        for (int64_t i = 0; i < n_sources; first += sources[i++].channels)
            copy_rows(sources[i], window, samples, from - left, length + reach, in + first * stride, stride);
        double *bias = biases.of(thread);
        for (int64_t m = 0; m < outputs; m++) {
            float *row = before + m * stride + start;
            back.row(window, m, from - ahead, length + reach, row - ahead);
            std::fill(row + length + left, row - start + stride, 0.0f);
            vec total{};
            int64_t t = 0;
            for (; t + LANES <= length; t += LANES) total += load(row + t);
            double rest = 0;
            for (; t < length; t++) rest += row[t];
            bias[m] += sum(total) + rest;
        }
        // Beyond the samples both are zero, so the last vector may reach there.
        weight_gradient(outputs, length, before + start, stride, in, offset, weights.of(thread));
        if (!further) return;
        packed.apply(before, length, made, made_stride);
        double *own = scales.of(thread);
        first = 0;
        for (int64_t i = 0; i < n_sources; first += sources[i++].channels)
            give_back(sources[i], made + first * made_stride, made_stride, window, samples, from, length,
                      own + first * 2);
    });
    weights.into(weight_gradient_to);
    biases.into(bias_gradient);
    if (!further) return;
    std::vector<double> scale_sums(inputs * 2);
    scales.into(scale_sums.data());
    int64_t first = 0;
    for (int64_t i = 0; i < n_sources; first += sources[i++].channels)
        if (sources[i].scale)
            std::copy_n(scale_sums.data() + first * 2, sources[i].channels * 2, sources[i].scale_gradient);
}

// Nearest up-sampling by `factor`, 'same' convolution of `factor` taps, ELU; at the low rate.
// `running` [outputs, inputs, factor] holds the weight's running sums over its taps, R_m = w_1 + ... + w_m. With C_m =
// R_m x, phase r meets only two low-rate neighbours: C_m[n-1] + C_s[n] - C_m[n] with m = left - r before the centre,
// C_s[n] at it, and C_m[n] + C_s[n+1] - C_m[n+1] with m = s - (r - left) behind it.
void tusp_up_forward(const Source *source, int64_t windows, int64_t samples, const float *running, const float *bias,
                     int64_t outputs, int64_t factor, float *out, double *sums, int threads) {
    const int64_t inputs = source->channels, left = (factor - 1) / 2;
    const Tiles tiles(windows, samples, 254, 1);
    const int64_t stride = up_to(tiles.length + 2, WIDE) + LANES, long_length = tiles.length * factor + LANES;
    std::vector<Packed> packed;
    for (int64_t m = 0; m < outputs; m++)
        packed.emplace_back(
            factor, inputs, [&](int64_t j, int64_t i) { return running[(m * inputs + i) * factor + j]; },
            [&](int64_t i) { return i * stride; });
    Sums<double> totals(windows * outputs * 2, threads);
    share(tiles.count(), threads, [&](int64_t tile, int thread) {
        const int64_t window = tile / tiles.each, from = tile % tiles.each * tiles.length;
        const int64_t length = std::min(tiles.length, samples - from);
        float *in = scratch(0, inputs * stride), *part = scratch(1, factor * stride);
        float *raised = scratch(2, long_length);
        copy_rows(*source, window, samples, from - 1, length + 2, in, stride);
        double *own = totals.of(thread) + window * outputs * 2;
        for (int64_t m = 0; m < outputs; m++) {
            packed[m].apply(in, length + 2, part, stride);
            const float *all = part + (factor - 1) * stride + 1;  // C_s
            for (int64_t r = 0; r < factor; r++) {
                float *to = raised + r;
                if (r == left) {
                    for (int64_t n = 0; n < length; n++) to[n * factor] = all[n];
                } else if (r < left) {
                    const float *c = part + (left - r - 1) * stride + 1;
                    for (int64_t n = 0; n < length; n++) to[n * factor] = c[n - 1] + (all[n] - c[n]);
                } else {
                    const float *c = part + (factor - (r - left) - 1) * stride + 1;
                    for (int64_t n = 0; n < length; n++) to[n * factor] = c[n] + (all[n + 1] - c[n + 1]);
                }
            }
            finish_row(raised, bias[m], length * factor, out + ((window * outputs + m) * samples + from) * factor,
                       own + m * 2);
        }
    });
    totals.into(sums);
}

void tusp_up_backward(const Source *source, int64_t windows, int64_t samples, const float *running, int64_t outputs,
                      int64_t factor, const float *gradient, const float *values, const double *sum_gradient,
                      float *running_gradient, float *bias_gradient, int threads) {
    const int64_t inputs = source->channels, left = (factor - 1) / 2;
    const Tiles tiles(windows, samples, 256, WIDE);
    const int64_t stride = up_to(tiles.length + 2, WIDE) + LANES, terms = outputs * factor;
    const Back back{gradient, values, sum_gradient, outputs, samples * factor};
    std::vector<int64_t> offset(inputs);
    for (int64_t i = 0; i < inputs; i++) offset[i] = i * stride;
    const Packed packed(
        inputs, terms, [&](int64_t i, int64_t k) { return running[(k / factor * inputs + i) * factor + k % factor]; },
        [&](int64_t k) { return k * stride; });
    Sums<float> weights(terms * inputs, threads);
    Sums<double> biases(outputs, threads), scales(inputs * 2, threads);
    share(tiles.count(), threads, [&](int64_t tile, int thread) {
        const int64_t window = tile / tiles.each, from = tile % tiles.each * tiles.length;
        const int64_t length = std::min(tiles.length, samples - from);
        float *in = scratch(0, inputs * stride), *made = scratch(1, inputs * stride);
        float *part = scratch(2, terms * stride), *fine = scratch(3, (tiles.length + 2) * factor + LANES);
        float *phase = scratch(4, factor * stride);
        copy_rows(*source, window, samples, from, length, in, stride);
        for (int64_t m = 0; m < outputs; m++) {
            back.row(window, m, (from - 1) * factor, (length + 2) * factor, fine);
            double total = 0;
            for (int64_t t = factor; t < (length + 1) * factor; t++) total += fine[t];
            biases.of(thread)[m] += total;
            for (int64_t r = 0; r < factor; r++)
                for (int64_t n = 0; n < length + 2; n++) phase[r * stride + n] = fine[n * factor + r];
            float *all = part + (m * factor + factor - 1) * stride;
            std::fill(all, all + stride, 0.0f);
            for (int64_t r = 0; r < factor; r++) {
                const float *z = phase + r * stride + 1;
                const int64_t before = r > left ? 1 : 0;  // phases behind the centre reach C_s of the next sample
                for (int64_t n = 0; n < length; n++) all[n] += z[n - before];
                if (r == left) continue;
                float *c = part + (m * factor + (r < left ? left - r : factor - (r - left)) - 1) * stride;
                for (int64_t n = 0; n < length; n++) c[n] = z[n + 1 - before] - z[n - before];
                std::fill(c + length, c + stride, 0.0f);
            }
        }
        weight_gradient(terms, up_to(length, LANES), part, stride, in, offset, weights.of(thread));
        packed.apply(part, length, made, stride);
        give_back(*source, made, stride, window, samples, from, length, scales.of(thread));
    });
    std::vector<float> by_term(terms * inputs);
    weights.into(by_term.data());
    for (int64_t k = 0; k < terms; k++)
        for (int64_t i = 0; i < inputs; i++)
            running_gradient[(k / factor * inputs + i) * factor + k % factor] = by_term[k * inputs + i];
    biases.into(bias_gradient);
    if (source->scale) scales.into(source->scale_gradient);
}

// Maximum of every `pool` samples of a row times scale plus shift.
void pool_row(const float *row, float scale, float shift, int64_t pooled, int64_t pool, float *out) {
    const int64_t each = std::max<int64_t>(1, TILE / pool);
    float *most = scratch(0, 2 * TILE + each * pool + pool);
    for (int64_t first = 0; first < pooled; first += each) {
        const int64_t count = std::min(each, pooled - first), length = count * pool;
        const float *from = row + first * pool;
        int64_t t = 0;
        for (; t + LANES <= length; t += LANES) store(most + t, load(from + t) * scale + shift);
        for (; t < length; t++) most[t] = from[t] * scale + shift;
        // The maximum of `reach` samples from each on, until that is all of a pool (what lies behind is not picked).
        for (int64_t reach = 1; reach < pool;) {
            const int64_t step = std::min(reach, pool - reach);
            for (t = 0; t < length; t += LANES) {
                const vec a = load(most + t), b = load(most + t + step);
                store(most + t, b > a ? b : a);
            }
            reach += step;
        }
        for (int64_t n = 0; n < count; n++) out[first + n] = most[n * pool];
    }
}

// Batch norm and max-pool. out and place (which of the pooled samples) [windows, channels, samples / pool]; place may be
// null.
void tusp_pool_forward(const Source *source, int64_t windows, int64_t samples, int64_t pool, float *out,
                       int32_t *place, int threads) {
    const int64_t pooled = samples / pool;
    share(windows * source->channels, threads, [&](int64_t at, int) {
        const int64_t c = at % source->channels;
        const float scale = source->scale ? source->scale[c] : 1, shift = source->scale ? source->shift[c] : 0;
        const float *row = source->values + at * samples;
        if (!place) return pool_row(row, scale, shift, pooled, pool, out + at * pooled);
        for (int64_t n = 0; n < pooled; n++, row += pool) {
            float best = row[0] * scale + shift;
            int32_t where = 0;
            for (int32_t j = 1; j < pool; j++) {
                const float value = row[j] * scale + shift;
                where = value > best ? j : where;
                best = value > best ? value : best;
            }
            out[at * pooled + n] = best;
            place[at * pooled + n] = where;
        }
    });
}

void tusp_pool_backward(const Source *source, int64_t windows, int64_t samples, int64_t pool, const float *gradient,
                        const int32_t *place, int threads) {
    const int64_t pooled = samples / pool;
    Sums<double> scales(source->channels * 2, threads);
    share(windows * source->channels, threads, [&](int64_t at, int thread) {
        const int64_t c = at % source->channels;
        const float scale = source->scale ? source->scale[c] : 1;
        const float *row = source->values + at * samples;
        float *to = source->gradient + at * samples;
        std::fill(to, to + samples, 0.0f);
        double by_scale = 0, by_shift = 0;
        for (int64_t n = 0; n < pooled; n++) {
            const float g = gradient[at * pooled + n];
            const int64_t t = n * pool + place[at * pooled + n];
            to[t] = g * scale;
            by_scale += g * row[t];
            by_shift += g;
        }
        scales.of(thread)[c * 2] += by_scale;
        scales.of(thread)[c * 2 + 1] += by_shift;
    });
    if (source->scale) scales.into(source->scale_gradient);
}

// mean over `view` samples of tanh(weight x + bias), weight [windows, outputs, inputs] and bias [windows, outputs] of
// every window's own. out [windows, outputs, samples / view].
void tusp_head_forward(const float *values, int64_t windows, int64_t inputs, int64_t samples, const float *weight,
                       const float *bias, int64_t outputs, int64_t view, float *out, int threads) {
    const int64_t tile_length = view * std::max<int64_t>(1, TILE / view), each = (samples + tile_length - 1) / tile_length;
    const int64_t stride = up_to(tile_length, WIDE) + LANES;
    std::vector<Packed> packed;
    for (int64_t n = 0; n < windows; n++)
        packed.emplace_back(
            outputs, inputs, [&](int64_t m, int64_t i) { return weight[(n * outputs + m) * inputs + i]; },
            [&](int64_t i) { return i * stride; });
    share(windows * each, threads, [&](int64_t tile, int) {
        const int64_t window = tile / each, from = tile % each * tile_length;
        const int64_t length = std::min(tile_length, samples - from);
        float *in = scratch(0, inputs * stride), *made = scratch(1, outputs * stride);
        copy_rows(Source{values, nullptr, nullptr, inputs, nullptr, nullptr}, window, samples, from, length, in, stride);
        packed[window].apply(in, length, made, stride);
        for (int64_t m = 0; m < outputs; m++) {
            float *row = made + m * stride;
            for (int64_t t = 0; t < length; t += LANES)
                store(row + t, tanh_of(load(row + t) + bias[window * outputs + m]));
            float *to = out + (window * outputs + m) * (samples / view) + from / view;
            for (int64_t start = 0; start < length; start += view) {
                vec total{};
                int64_t t = start;
                for (; t + LANES <= start + view; t += LANES) total += load(row + t);
                double rest = sum(total);
                for (; t < start + view; t++) rest += row[t];
                *to++ = float(rest / double(view));
            }
        }
    });
}

void tusp_head_backward(const float *values, int64_t windows, int64_t inputs, int64_t samples, const float *weight,
                        const float *bias, int64_t outputs, int64_t view, const float *gradient, float *value_gradient,
                        float *weight_gradient_to, float *bias_gradient, int threads) {
    const int64_t tile_length = view * std::max<int64_t>(1, TILE / view), each = (samples + tile_length - 1) / tile_length;
    const int64_t stride = up_to(tile_length, WIDE) + LANES;
    std::vector<int64_t> offset(inputs);
    for (int64_t i = 0; i < inputs; i++) offset[i] = i * stride;
    std::vector<Packed> packed, transposed;
    for (int64_t n = 0; n < windows; n++) {
        const float *own = weight + n * outputs * inputs;
        packed.emplace_back(
            outputs, inputs, [&](int64_t m, int64_t i) { return own[m * inputs + i]; },
            [&](int64_t i) { return i * stride; });
        transposed.emplace_back(
            inputs, outputs, [&](int64_t i, int64_t m) { return own[m * inputs + i]; },
            [&](int64_t m) { return m * stride; });
    }
    Sums<float> weights(windows * outputs * inputs, threads);
    Sums<double> biases(windows * outputs, threads);
    share(windows * each, threads, [&](int64_t tile, int thread) {
        const int64_t window = tile / each, from = tile % each * tile_length;
        const int64_t length = std::min(tile_length, samples - from);
        float *in = scratch(0, inputs * stride), *made = scratch(1, std::max(inputs, outputs) * stride);
        float *before = scratch(2, outputs * stride);
        const Source source{values, nullptr, nullptr, inputs, value_gradient, nullptr};
        copy_rows(source, window, samples, from, length, in, stride);
        packed[window].apply(in, length, made, stride);
        for (int64_t m = 0; m < outputs; m++) {
            const int64_t at = window * outputs + m;
            float *row = before + m * stride;
            const float *z = made + m * stride;
            const float *g = gradient + at * (samples / view) + from / view;
            for (int64_t start = 0; start < length; start += view) {
                const float share_of = *g++ / float(view);
                for (int64_t t = start; t < start + view; t += LANES) {
                    const vec h = tanh_of(load(z + t) + bias[at]);
                    store(row + t, share_of * (1.0f - h * h));
                }
            }
            std::fill(row + length, row + stride, 0.0f);
            vec total{};
            for (int64_t t = 0; t < length; t += LANES) total += load(row + t);
            biases.of(thread)[at] += sum(total);
        }
        weight_gradient(outputs, up_to(length, LANES), before, stride, in, offset,
                        weights.of(thread) + window * outputs * inputs);
        transposed[window].apply(before, length, made, stride);
        give_back(source, made, stride, window, samples, from, length, nullptr);
    });
    weights.into(weight_gradient_to);
    biases.into(bias_gradient);
}
}
