// Cross-entropy of a row of logits with the class that is right, and its gradient, in one read of the logits.
//
// loss = logsumexp(z) - (1 - smoothing) * z[target] - smoothing * mean(z)
// dz   = (softmax(z) - (1 - smoothing) * onehot(target) - smoothing / width) * scale
//
// (Szegedy et al., 2016, for the smoothing.) Rows whose target is `ignored` have loss 0 and gradient 0. dz may be the
// logits' own memory: of a vocabulary of 49,152 there is then no second array. Rows of up to 57,344 bfloat16 logits stay
// in registers between the sums and the gradient; longer ones are read again. Sums are in float32, in a fixed order.
// Rows of an odd width are as fast as others if they begin at multiples of 16 bytes: `stride` may exceed `width`.
#include "launchers/cross_entropy.h"

#include "dtypes.cuh"
#include "platform.cuh"
#include "reduce.cuh"

namespace datahall {
namespace {

constexpr int most_threads = 512;
constexpr int most_packs = 14;  // 56 of the 128 registers that each of so many threads can have

struct CrossEntropyArguments {
  const void* logits;
  const long long* targets;
  const float* scale;  // of each row's gradient; null for 1
  float* loss;         // null: not wanted
  float* logsumexp;    // null: not wanted
  void* dlogits;       // null: not wanted
  long long width;
  long long stride;        // elements between rows, of logits and dlogits alike
  long long scale_stride;  // 0: one number for all rows
  long long ignored;
  float smoothing;
};

struct RowLoss {
  float logsumexp;
  float smoothing_each;  // smoothing / width
  float right;           // what the right class has beside that
  float scale;
};

// Write the loss of a row; what its gradient is made from.
__device__ __forceinline__ RowLoss finish_loss(
    const CrossEntropyArguments& a, long long row, long long target, float most, float sum, float total,
    float logit_of_target) {
  const bool counts = target != a.ignored;
  const float logsumexp = most + logf(sum);
  const float width = static_cast<float>(a.width);
  if (threadIdx.x == 0) {
    // Without smoothing, the mean does not count: classes that cannot be have logits of -inf.
    const float spread = a.smoothing == 0.0f ? 0.0f : a.smoothing * (total / width);
    const float loss = logsumexp - (1.0f - a.smoothing) * logit_of_target - spread;
    if (a.loss != nullptr) a.loss[row] = counts ? loss : 0.0f;
    if (a.logsumexp != nullptr) a.logsumexp[row] = logsumexp;
  }
  const float scale = a.scale == nullptr ? 1.0f : a.scale[row * a.scale_stride];
  return {logsumexp, a.smoothing / width, 1.0f - a.smoothing, counts ? scale : 0.0f};
}

// How many elements of the pack at `column` are of the row; a wide pack that is read there may have some of the padding.
template <int count>
__device__ __forceinline__ int valid_of(long long column, long long width) {
  return width - column < count ? static_cast<int>(width - column) : count;
}

template <typename Element, int count>
__device__ __forceinline__ void write_gradient(
    const CrossEntropyArguments& a, const RowLoss& row, const Pack<Element, count>& pack, long long row_start,
    long long column, long long target) {
  float values[count];
#pragma unroll
  for (int i = 0; i < count; ++i) {
    float off = expf(pack.get(i) - row.logsumexp) - row.smoothing_each;
    if (column + i == target) off -= row.right;
    values[i] = row.scale == 0.0f ? 0.0f : off * row.scale;  // an ignored row has none, whatever its logits are
  }
  auto* to = static_cast<Element*>(a.dlogits) + row_start + column;
  const int valid = valid_of<count>(column, a.width);
  if (valid == count) {
    Pack<Element, count>::of(values).write(to);
  } else {
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const float value[1] = {values[i]};
      if (i < valid) Pack<Element, 1>::of(value).write(to + i);
    }
  }
}

// The row's own logit of the right class; NaN for a target that is no class, so that it shows in the loss.
template <typename Element>
__device__ __forceinline__ float read_target(const CrossEntropyArguments& a, long long row_start, long long target) {
  if (target == a.ignored) return 0.0f;
  if (target < 0 || target >= a.width) return __uint_as_float(0x7fffffffu);
  return Pack<Element, 1>::read(static_cast<const Element*>(a.logits) + row_start + target).get(0);
}

// A row in the registers of a block.
template <typename Element, int count, int packs>
__global__ void __launch_bounds__(most_threads, 1) cross_entropy(CrossEntropyArguments a) {
  __shared__ typename RowSum<2, false>::Slots sum_slots;
  __shared__ typename RowMost::Slots most_slots;
  RowSum<2, false> row_sum(sum_slots);
  const long long row = blockIdx.x;
  const long long row_start = row * a.stride;
  const auto* logits = static_cast<const Element*>(a.logits) + row_start;
  const int first = static_cast<int>(threadIdx.x) * count;
  const int stride = static_cast<int>(blockDim.x) * count;
  const int width = static_cast<int>(a.width);
  const long long target = a.targets[row];
  const float logit_of_target = read_target<Element>(a, row_start, target);

  Pack<Element, count> kept[packs];
  float most = -__uint_as_float(0x7f800000u);
#pragma unroll
  for (int p = 0; p < packs; ++p) {
    const int column = first + p * stride;
    if (column < width) {
      kept[p] = Pack<Element, count>::read(logits + column);
      const int valid = valid_of<count>(column, width);
#pragma unroll
      for (int i = 0; i < count; ++i) {
        if (i < valid) most = greater(most, kept[p].get(i));
      }
    }
  }
  most = RowMost(most_slots).of(most);
  float sums[2] = {0.0f, 0.0f};
#pragma unroll
  for (int p = 0; p < packs; ++p) {
    const int column = first + p * stride;
    if (column < width) {
      const int valid = valid_of<count>(column, width);
#pragma unroll
      for (int i = 0; i < count; ++i) {
        if (i < valid) {
          sums[0] += expf(kept[p].get(i) - most);
          sums[1] += kept[p].get(i);
        }
      }
    }
  }
  row_sum.sum(sums);
  const RowLoss found = finish_loss(a, row, target, most, sums[0], sums[1], logit_of_target);
  if (a.dlogits == nullptr) return;
#pragma unroll
  for (int p = 0; p < packs; ++p) {
    const int column = first + p * stride;
    if (column < width) write_gradient<Element, count>(a, found, kept[p], row_start, column, target);
  }
}

// A row too long for registers: one pass for all sums (Milakov and Gimelshein, 2018), one for the gradient.
template <typename Element, int count>
__global__ void __launch_bounds__(most_threads) cross_entropy_wide(CrossEntropyArguments a) {
  __shared__ typename RowSum<2, false>::Slots sum_slots;
  __shared__ typename RowMost::Slots most_slots;
  RowSum<2, false> row_sum(sum_slots);
  const long long row = blockIdx.x;
  const long long row_start = row * a.stride;
  const auto* logits = static_cast<const Element*>(a.logits) + row_start;
  const long long first = static_cast<long long>(threadIdx.x) * count;
  const long long stride = static_cast<long long>(blockDim.x) * count;
  const long long target = a.targets[row];
  const float logit_of_target = read_target<Element>(a, row_start, target);

  const float lowest = -__uint_as_float(0x7f800000u);
  float mine = lowest;
  float sums[2] = {0.0f, 0.0f};
  for (long long column = first; column < a.width; column += stride) {
    const auto pack = Pack<Element, count>::read(logits + column);
    const int valid = valid_of<count>(column, a.width);
    float more = mine;
#pragma unroll
    for (int i = 0; i < count; ++i) {
      if (i < valid) more = greater(more, pack.get(i));
    }
    if (more > mine) {
      sums[0] *= expf(mine - more);
      mine = more;
    }
#pragma unroll
    for (int i = 0; i < count; ++i) {
      if (i < valid) {
        // Where all logits so far are -inf, inf - inf must not make a NaN of nothing.
        sums[0] += mine == lowest ? expf(pack.get(i)) : expf(pack.get(i) - mine);
        sums[1] += pack.get(i);
      }
    }
  }
  const float most = RowMost(most_slots).of(mine);
  if (mine != most) sums[0] = mine == lowest ? sums[0] : sums[0] * expf(mine - most);
  row_sum.sum(sums);
  const RowLoss found = finish_loss(a, row, target, most, sums[0], sums[1], logit_of_target);
  if (a.dlogits == nullptr) return;
  for (long long column = first; column < a.width; column += stride) {
    const auto pack = Pack<Element, count>::read(logits + column);
    write_gradient<Element, count>(a, found, pack, row_start, column, target);
  }
}

unsigned threads_for(long long in_row, int packs) {
  const long long threads = (in_row + packs - 1) / packs;
  return static_cast<unsigned>((threads + warp_size - 1) / warp_size * warp_size);
}

template <typename Element, int count>
int launch_cross_entropy(const CrossEntropyArguments& a, long long rows, void* stream) {
  const dim3 grid(static_cast<unsigned>(rows));
  const auto start = [&](auto kernel, unsigned threads) { return launch(kernel, grid, dim3(threads), 0, stream, a); };
  const long long in_row = (a.width + count - 1) / count;
  if (in_row <= 2 * most_threads) return start(cross_entropy<Element, count, 2>, threads_for(in_row, 2));
  if (in_row <= 4 * most_threads) return start(cross_entropy<Element, count, 4>, threads_for(in_row, 4));
  if (in_row <= 8 * most_threads) return start(cross_entropy<Element, count, 8>, threads_for(in_row, 8));
  if (in_row <= most_packs * most_threads) {
    return start(cross_entropy<Element, count, most_packs>, threads_for(in_row, most_packs));
  }
  return start(cross_entropy_wide<Element, count>, most_threads);
}

template <typename Element>
int launch_typed(const CrossEntropyArguments& a, long long rows, void* stream) {
  constexpr int wide = widest_pack<Element>;
  if (is_aligned(a.logits) && is_aligned(a.dlogits) && a.stride % wide == 0) {
    return launch_cross_entropy<Element, wide>(a, rows, stream);
  }
  return launch_cross_entropy<Element, 1>(a, rows, stream);
}

}  // namespace
}  // namespace datahall

extern "C" {

int datahall_cross_entropy(const void* logits, const long long* targets, const float* scale, long long scale_stride,
                           float* loss, float* logsumexp, void* dlogits, long long rows, long long width,
                           long long stride, long long ignored, float smoothing, int dtype, void* stream) {
  using namespace datahall;
  if (rows == 0) return 0;
  if (rows < 0 || rows > 0x7fffffffLL || width <= 0 || stride < width) return cudaErrorInvalidValue;
  const CrossEntropyArguments a{logits, targets, scale,        loss,    logsumexp, dlogits,
                                width,  stride,  scale_stride, ignored, smoothing};
  return with_type(static_cast<Dtype>(dtype), [&]<typename Element>() {
    return launch_typed<Element>(a, rows, stream);
  });
}

}  // extern "C"
