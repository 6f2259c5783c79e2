// RMSNorm and LayerNorm, with and without an added residual, forward and backward.
//
// y = x_hat * weight + bias with x_hat = (s - mean) * rstd over the last dimension, where s = x + residual rounded to
// x's type (what flows on), mean = 0 for RMSNorm (Zhang and Sennrich, 2019; Ba et al., 2016). Sums are in float32.
//
// All of these are bound by memory: each input is read once and each output written once. A row is kept in registers
// as it was read, by one warp (short rows) or by a block. Rows too long for that are read again, from L2 where it holds
// them. In the backward pass a block goes over many rows, so that the sums over rows (gradients of weight and bias)
// stay in registers; what the blocks found is added up by a second kernel, in a fixed order.
#include <algorithm>

#include "dtypes.cuh"
#include "launchers/norm.h"
#include "platform.cuh"
#include "reduce.cuh"

namespace datahall {
namespace {

constexpr int warps_per_block = 8;          // where a warp has a row
constexpr int most_forward_threads = 1024;  // where a block has a row
constexpr int most_backward_threads = 512;  // 128 registers each: the sums over rows are kept there
constexpr int most_packs = 4;               // 16 bytes each that a thread keeps of a row
constexpr int wide_threads = 512;
constexpr int column_threads = 256;

struct ForwardArguments {
  const void* x;
  const void* residual;  // null: none is added
  const void* weight;    // null: ones
  const void* bias;      // null: zeros
  void* y;
  void* summed;  // null unless a residual is added
  float* mean;   // LayerNorm only
  float* rstd;
  long long rows;
  long long width;
  float epsilon;
  Dtype weight_dtype;
};

struct BackwardArguments {
  const void* dy;
  const void* dsummed;  // null: nothing flows back into what flowed on
  const void* x;        // what was normalised: with a residual, the sum
  const void* weight;
  const float* mean;
  const float* rstd;
  void* dx;  // of x, and of the residual alike
  float* partial_dweight;  // [partials, width]; null: not wanted
  float* partial_dbias;
  long long rows;
  long long width;
  int partials;
  Dtype weight_dtype;
};

template <typename Element, int count>
__device__ __forceinline__ Pack<Element, count> read_and_add(
    const ForwardArguments& a, long long at, const Element* x, const Element* residual) {
  auto pack = Pack<Element, count>::read(x + at);
  if (residual != nullptr) {
    const auto more = Pack<Element, count>::read(residual + at);
    float values[count];
#pragma unroll
    for (int i = 0; i < count; ++i) values[i] = pack.get(i) + more.get(i);
    pack = Pack<Element, count>::of(values);
    pack.write(static_cast<Element*>(a.summed) + at);
  }
  return pack;
}

template <typename Element, int count>
__device__ __forceinline__ void write_normalised(
    const ForwardArguments& a, const Pack<Element, count>& pack, long long row_start, long long column, float mean,
    float rstd) {
  float weight[count], bias[count], values[count];
  read_weights<Element, count>(a.weight, a.weight_dtype, column, 1.0f, weight);
  read_weights<Element, count>(a.bias, a.weight_dtype, column, 0.0f, bias);
#pragma unroll
  for (int i = 0; i < count; ++i) values[i] = (pack.get(i) - mean) * rstd * weight[i] + bias[i];
  Pack<Element, count>::of(values).write(static_cast<Element*>(a.y) + row_start + column);
}

// A row in the registers of a warp (blockDim = 32 x rows) or of a block (blockDim = threads x 1).
template <typename Element, int count, int packs, bool layer, bool row_is_warp>
__global__ void __launch_bounds__(row_is_warp ? warp_size * warps_per_block : most_forward_threads, 1)
    norm_forward(ForwardArguments a) {
  __shared__ typename RowSum<1, row_is_warp>::Slots slots;
  RowSum<1, row_is_warp> rows(slots);
  const long long row = static_cast<long long>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (row >= a.rows) return;  // a whole warp, or nobody
  const long long row_start = row * a.width;
  const auto* x = static_cast<const Element*>(a.x);
  const auto* residual = static_cast<const Element*>(a.residual);
  const int first = static_cast<int>(threadIdx.x) * count;
  const int stride = static_cast<int>(blockDim.x) * count;
  const int width = static_cast<int>(a.width);

  Pack<Element, count> kept[packs];
#pragma unroll
  for (int p = 0; p < packs; ++p) {
    const int column = first + p * stride;
    if (column < width) kept[p] = read_and_add<Element, count>(a, row_start + column, x, residual);
  }
  float mean = 0.0f;
  if constexpr (layer) {
    float sum[1] = {0.0f};
#pragma unroll
    for (int p = 0; p < packs; ++p) {
      if (first + p * stride < width) {
#pragma unroll
        for (int i = 0; i < count; ++i) sum[0] += kept[p].get(i);
      }
    }
    rows.sum(sum);
    mean = sum[0] / static_cast<float>(width);
  }
  float squares[1] = {0.0f};
#pragma unroll
  for (int p = 0; p < packs; ++p) {
    if (first + p * stride < width) {
#pragma unroll
      for (int i = 0; i < count; ++i) {
        const float off = kept[p].get(i) - mean;
        squares[0] += off * off;
      }
    }
  }
  rows.sum(squares);
  const float rstd = rsqrtf(squares[0] / static_cast<float>(width) + a.epsilon);
  if (threadIdx.x == 0) {
    a.rstd[row] = rstd;
    if constexpr (layer) a.mean[row] = mean;
  }
#pragma unroll
  for (int p = 0; p < packs; ++p) {
    const int column = first + p * stride;
    if (column < width) write_normalised<Element, count>(a, kept[p], row_start, column, mean, rstd);
  }
}

// A row too long for registers: read again for each sum, and once more to write.
template <typename Element, int count, bool layer>
__global__ void __launch_bounds__(wide_threads) norm_forward_wide(ForwardArguments a) {
  __shared__ typename RowSum<1, false>::Slots slots;
  RowSum<1, false> rows(slots);
  const long long row_start = static_cast<long long>(blockIdx.x) * a.width;
  const long long first = static_cast<long long>(threadIdx.x) * count;
  const long long stride = static_cast<long long>(blockDim.x) * count;
  const auto* x = static_cast<const Element*>(a.x);
  const auto* residual = static_cast<const Element*>(a.residual);
  // Each thread reads again what it wrote itself.
  const auto* sum_or_x = residual != nullptr ? static_cast<const Element*>(a.summed) : x;

  float first_sum[1] = {0.0f};
  for (long long column = first; column < a.width; column += stride) {
    const auto pack = read_and_add<Element, count>(a, row_start + column, x, residual);
#pragma unroll
    for (int i = 0; i < count; ++i) first_sum[0] += layer ? pack.get(i) : pack.get(i) * pack.get(i);
  }
  rows.sum(first_sum);
  float mean = 0.0f;
  float variance = first_sum[0] / static_cast<float>(a.width);
  if constexpr (layer) {
    mean = variance;
    float squares[1] = {0.0f};
    for (long long column = first; column < a.width; column += stride) {
      const auto pack = Pack<Element, count>::read(sum_or_x + row_start + column);
#pragma unroll
      for (int i = 0; i < count; ++i) {
        const float off = pack.get(i) - mean;
        squares[0] += off * off;
      }
    }
    rows.sum(squares);
    variance = squares[0] / static_cast<float>(a.width);
  }
  const float rstd = rsqrtf(variance + a.epsilon);
  if (threadIdx.x == 0) {
    a.rstd[blockIdx.x] = rstd;
    if constexpr (layer) a.mean[blockIdx.x] = mean;
  }
  for (long long column = first; column < a.width; column += stride) {
    const auto pack = Pack<Element, count>::read(sum_or_x + row_start + column);
    write_normalised<Element, count>(a, pack, row_start, column, mean, rstd);
  }
}

// What of one pack goes into the two sums of a row: of g = dy * weight, and of g * x_hat.
template <typename Element, int count, bool layer>
__device__ __forceinline__ void add_to_sums(
    const Pack<Element, count>& x, const Pack<Element, count>& dy, const float (&weight)[count], float mean, float rstd,
    float (&sums)[layer ? 2 : 1]) {
#pragma unroll
  for (int i = 0; i < count; ++i) {
    const float g = dy.get(i) * weight[i];
    sums[0] += g * ((x.get(i) - mean) * rstd);
    if constexpr (layer) sums[1] += g;
  }
}

template <typename Element, int count, bool layer>
__device__ __forceinline__ void write_dx(
    const BackwardArguments& a, const Pack<Element, count>& x, const Pack<Element, count>& dy,
    const float (&weight)[count], long long at, float mean, float rstd, const float (&means)[layer ? 2 : 1]) {
  float values[count];
#pragma unroll
  for (int i = 0; i < count; ++i) {
    const float x_hat = (x.get(i) - mean) * rstd;
    float off = dy.get(i) * weight[i] - x_hat * means[0];
    if constexpr (layer) off -= means[1];
    values[i] = off * rstd;
  }
  if (a.dsummed != nullptr) {
    const auto more = Pack<Element, count>::read(static_cast<const Element*>(a.dsummed) + at);
#pragma unroll
    for (int i = 0; i < count; ++i) values[i] += more.get(i);
  }
  Pack<Element, count>::of(values).write(static_cast<Element*>(a.dx) + at);
}

template <int count>
__device__ __forceinline__ void write_floats(float* to, const float (&values)[count]) {
  constexpr int step = count < widest_pack<float> ? count : widest_pack<float>;
#pragma unroll
  for (int at = 0; at < count; at += step) {
    float some[step];
#pragma unroll
    for (int i = 0; i < step; ++i) some[i] = values[at + i];
    Pack<float, step>::of(some).write(to + at);
  }
}

// Rows in registers, one after the other: gridDim.x = partials, blockDim as in the forward pass.
template <typename Element, int count, int packs, bool layer, bool row_is_warp>
__global__ void __launch_bounds__(row_is_warp ? warp_size * warps_per_block : most_backward_threads, 1)
    norm_backward(BackwardArguments a) {
  constexpr int sums_per_row = layer ? 2 : 1;
  __shared__ typename RowSum<sums_per_row, row_is_warp>::Slots slots;
  RowSum<sums_per_row, row_is_warp> row_sum(slots);
  const auto* x = static_cast<const Element*>(a.x);
  const auto* dy = static_cast<const Element*>(a.dy);
  const int first = static_cast<int>(threadIdx.x) * count;
  const int stride = static_cast<int>(blockDim.x) * count;
  const int width = static_cast<int>(a.width);
  float dweight[packs][count] = {};
  float dbias[layer ? packs : 1][count] = {};

  const long long step = static_cast<long long>(gridDim.x) * blockDim.y;
  for (long long row = static_cast<long long>(blockIdx.x) * blockDim.y + threadIdx.y; row < a.rows; row += step) {
    const long long row_start = row * a.width;
    Pack<Element, count> kept_x[packs], kept_dy[packs];
#pragma unroll
    for (int p = 0; p < packs; ++p) {
      const int column = first + p * stride;
      if (column < width) {
        kept_x[p] = Pack<Element, count>::read(x + row_start + column);
        kept_dy[p] = Pack<Element, count>::read(dy + row_start + column);
      }
    }
    const float rstd = a.rstd[row];
    const float mean = layer ? a.mean[row] : 0.0f;
    float sums[sums_per_row] = {};
#pragma unroll
    for (int p = 0; p < packs; ++p) {
      const int column = first + p * stride;
      if (column < width) {
        float weight[count];
        read_weights<Element, count>(a.weight, a.weight_dtype, column, 1.0f, weight);
        add_to_sums<Element, count, layer>(kept_x[p], kept_dy[p], weight, mean, rstd, sums);
#pragma unroll
        for (int i = 0; i < count; ++i) {
          dweight[p][i] += kept_dy[p].get(i) * ((kept_x[p].get(i) - mean) * rstd);
          if constexpr (layer) dbias[p][i] += kept_dy[p].get(i);
        }
      }
    }
    row_sum.sum(sums);
#pragma unroll
    for (int i = 0; i < sums_per_row; ++i) sums[i] /= static_cast<float>(width);
#pragma unroll
    for (int p = 0; p < packs; ++p) {
      const int column = first + p * stride;
      if (column < width) {
        float weight[count];
        read_weights<Element, count>(a.weight, a.weight_dtype, column, 1.0f, weight);
        write_dx<Element, count, layer>(a, kept_x[p], kept_dy[p], weight, row_start + column, mean, rstd, sums);
      }
    }
  }

  const long long partial_start = static_cast<long long>(blockIdx.x) * a.width;
  if constexpr (!row_is_warp) {
#pragma unroll
    for (int p = 0; p < packs; ++p) {
      const int column = first + p * stride;
      if (column < width) {
        if (a.partial_dweight != nullptr) write_floats(a.partial_dweight + partial_start + column, dweight[p]);
        if constexpr (layer) {
          if (a.partial_dbias != nullptr) write_floats(a.partial_dbias + partial_start + column, dbias[p]);
        }
      }
    }
  } else {
    // The warps of the block had different rows of the same columns. Their sums are added in the order of the warps.
    constexpr int columns = warp_size * count * packs;
    constexpr int pad = 1;  // a pack's elements then lie in different banks for neighbouring lanes
    __shared__ float by_warp[warps_per_block][warp_size * (count * packs + pad)];
    const auto add_up = [&](const float (&found)[packs][count], float* partial) {
#pragma unroll
      for (int p = 0; p < packs; ++p) {
#pragma unroll
        for (int i = 0; i < count; ++i) {
          by_warp[threadIdx.y][threadIdx.x * (count * packs + pad) + p * count + i] = found[p][i];
        }
      }
      __syncthreads();
      const int thread = static_cast<int>(threadIdx.y * warp_size + threadIdx.x);
      for (int column = thread; column < columns; column += warp_size * warps_per_block) {
        if (column >= width) break;
        const int p = column / (warp_size * count);
        const int lane = column % (warp_size * count) / count;
        const int slot = lane * (count * packs + pad) + p * count + column % count;
        float sum = 0.0f;
        for (int warp = 0; warp < warps_per_block; ++warp) sum += by_warp[warp][slot];
        partial[partial_start + column] = sum;
      }
      __syncthreads();
    };
    if (a.partial_dweight != nullptr) add_up(dweight, a.partial_dweight);
    if constexpr (layer) {
      if (a.partial_dbias != nullptr) add_up(dbias, a.partial_dbias);
    }
  }
}

// dx of a row too long for registers.
template <typename Element, int count, bool layer>
__global__ void __launch_bounds__(wide_threads) norm_backward_wide(BackwardArguments a) {
  constexpr int sums_per_row = layer ? 2 : 1;
  __shared__ typename RowSum<sums_per_row, false>::Slots slots;
  RowSum<sums_per_row, false> row_sum(slots);
  const long long row_start = static_cast<long long>(blockIdx.x) * a.width;
  const auto* x = static_cast<const Element*>(a.x) + row_start;
  const auto* dy = static_cast<const Element*>(a.dy) + row_start;
  const long long first = static_cast<long long>(threadIdx.x) * count;
  const long long stride = static_cast<long long>(blockDim.x) * count;
  const float rstd = a.rstd[blockIdx.x];
  const float mean = layer ? a.mean[blockIdx.x] : 0.0f;
  float sums[sums_per_row] = {};
  for (long long column = first; column < a.width; column += stride) {
    float weight[count];
    read_weights<Element, count>(a.weight, a.weight_dtype, column, 1.0f, weight);
    add_to_sums<Element, count, layer>(
        Pack<Element, count>::read(x + column), Pack<Element, count>::read(dy + column), weight, mean, rstd, sums);
  }
  row_sum.sum(sums);
#pragma unroll
  for (int i = 0; i < sums_per_row; ++i) sums[i] /= static_cast<float>(a.width);
  for (long long column = first; column < a.width; column += stride) {
    float weight[count];
    read_weights<Element, count>(a.weight, a.weight_dtype, column, 1.0f, weight);
    write_dx<Element, count, layer>(
        a, Pack<Element, count>::read(x + column), Pack<Element, count>::read(dy + column), weight, row_start + column,
        mean, rstd, sums);
  }
}

// Gradients of weight and bias for long rows: a thread has a column, blockIdx.y = one of `partials` parts of the rows.
template <typename Element, bool layer>
__global__ void __launch_bounds__(column_threads) norm_backward_columns(BackwardArguments a) {
  const long long column = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (column >= a.width) return;
  const auto* x = static_cast<const Element*>(a.x);
  const auto* dy = static_cast<const Element*>(a.dy);
  float dweight = 0.0f, dbias = 0.0f;
  for (long long row = blockIdx.y; row < a.rows; row += gridDim.y) {
    const long long at = row * a.width + column;
    const float g = Pack<Element, 1>::read(dy + at).get(0);
    const float mean = layer ? a.mean[row] : 0.0f;
    dweight += g * ((Pack<Element, 1>::read(x + at).get(0) - mean) * a.rstd[row]);
    dbias += g;
  }
  const long long at = static_cast<long long>(blockIdx.y) * a.width + column;
  if (a.partial_dweight != nullptr) a.partial_dweight[at] = dweight;
  if (layer && a.partial_dbias != nullptr) a.partial_dbias[at] = dbias;
}

// Sums of the columns of `partial` [partials, width]; blockDim = 32 columns x 32 rows at a time.
__global__ void __launch_bounds__(warp_size* warp_size)
    add_partials(const float* partial, void* sum, long long width, int partials, Dtype dtype) {
  __shared__ float found[warp_size][warp_size + 1];
  const long long column = static_cast<long long>(blockIdx.x) * warp_size + threadIdx.x;
  float mine = 0.0f;
  if (column < width) {
    for (int row = static_cast<int>(threadIdx.y); row < partials; row += warp_size) {
      mine += partial[row * width + column];
    }
  }
  found[threadIdx.y][threadIdx.x] = mine;
  __syncthreads();
  const float all = warp_sum(found[threadIdx.x][threadIdx.y]);
  const long long of = static_cast<long long>(blockIdx.x) * warp_size + threadIdx.y;
  if (threadIdx.x == 0 && of < width) write_rounded(sum, of, all, dtype);
}

// How the threads of a block divide rows of `width` elements.
struct Shape {
  int packs;  // of a row that each thread keeps; 0: the row is too long
  bool row_is_warp;
  dim3 block;
};

// `most_packs_of_block`: how many packs a thread keeps at most where a row has a block.
Shape shape_of(long long width, int count, int most_threads, int most_packs_of_block) {
  const long long in_row = (width + count - 1) / count;  // packs
  const bool odd = count == 1;  // slow in any case: one shape serves
  if (in_row <= warp_size * most_packs) {
    const int packs = odd ? most_packs : static_cast<int>((in_row + warp_size - 1) / warp_size);
    return {packs, true, dim3(warp_size, warps_per_block)};
  }
  if (in_row > static_cast<long long>(most_threads) * most_packs_of_block) return {0, false, dim3(wide_threads)};
  // Two packs a thread keep enough loads in flight; more only where there are no more threads.
  const int packs = odd || in_row > 2LL * most_threads ? most_packs_of_block : 2;
  const long long threads = (in_row + packs - 1) / packs;
  return {packs, false, dim3(static_cast<unsigned>((threads + warp_size - 1) / warp_size * warp_size))};
}

Shape forward_shape(long long width, int count) {
  return shape_of(width, count, most_forward_threads, most_packs);
}

// LayerNorm keeps sums for weight and bias: with four packs of a row there would be no registers for them.
Shape backward_shape(long long width, int count, bool layer) {
  return shape_of(width, count, most_backward_threads, layer && count > 1 ? 2 : most_packs);
}

template <int packs>
struct Packs {
  static constexpr int value = packs;
};

// Call `start` with the packs of `shape` as a type, of those that there are for `count`.
template <int count, bool row_is_warp, int most, typename Start>
int with_packs(int packs, const Start& start) {
  if constexpr (count == 1) {
    return start(Packs<most>{});
  } else {
    if constexpr (row_is_warp) {
      if (packs == 1) return start(Packs<1>{});
      if (packs == 3) return start(Packs<3>{});
    }
    if constexpr (most > 2) {
      if (packs > 2) return start(Packs<most>{});
    }
    return start(Packs<2>{});
  }
}

template <typename Element, int count, bool layer>
int launch_forward(const ForwardArguments& a, void* stream) {
  const Shape shape = forward_shape(a.width, count);
  const long long blocks = (a.rows + shape.block.y - 1) / shape.block.y;
  if (blocks > 0x7fffffffLL) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>(blocks));
  const auto start = [&](auto kernel) { return launch(kernel, grid, shape.block, 0, stream, a); };
  if (shape.packs == 0) return start(norm_forward_wide<Element, count, layer>);
  if (shape.row_is_warp) {
    return with_packs<count, true, most_packs>(shape.packs, [&](auto packs) {
      return start(norm_forward<Element, count, decltype(packs)::value, layer, true>);
    });
  }
  return with_packs<count, false, most_packs>(shape.packs, [&](auto packs) {
    return start(norm_forward<Element, count, decltype(packs)::value, layer, false>);
  });
}

template <typename Element, int count, bool layer>
int launch_backward(const BackwardArguments& a, void* stream) {
  const Shape shape = backward_shape(a.width, count, layer);
  const auto start = [&](auto kernel, dim3 grid, dim3 block) { return launch(kernel, grid, block, 0, stream, a); };
  if (shape.packs == 0) {
    if (a.rows > 0x7fffffffLL) return cudaErrorInvalidValue;
    const dim3 rows(static_cast<unsigned>(a.rows));
    const int error = start(norm_backward_wide<Element, count, layer>, rows, shape.block);
    if (error != 0 || (a.partial_dweight == nullptr && a.partial_dbias == nullptr)) return error;
    const auto columns = static_cast<unsigned>((a.width + column_threads - 1) / column_threads);
    return start(
        norm_backward_columns<Element, layer>, dim3(columns, static_cast<unsigned>(a.partials)), dim3(column_threads));
  }
  const dim3 grid(static_cast<unsigned>(a.partials));
  if (shape.row_is_warp) {
    return with_packs<count, true, most_packs>(shape.packs, [&](auto packs) {
      return start(norm_backward<Element, count, decltype(packs)::value, layer, true>, grid, shape.block);
    });
  }
  return with_packs<count, false, layer && count != 1 ? 2 : most_packs>(shape.packs, [&](auto packs) {
    return start(norm_backward<Element, count, decltype(packs)::value, layer, false>, grid, shape.block);
  });
}

template <bool layer>
int forward(const ForwardArguments& a, Dtype dtype, void* stream) {
  if (a.rows == 0 || a.width == 0) return 0;
  const bool aligned = is_aligned(a.x) && is_aligned(a.residual) && is_aligned(a.weight) && is_aligned(a.bias) &&
                       is_aligned(a.y) && is_aligned(a.summed);
  const auto typed = [&]<typename Element>() {
    constexpr int wide = widest_pack<Element>;
    if (aligned && a.width % wide == 0) return launch_forward<Element, wide, layer>(a, stream);
    return launch_forward<Element, 1, layer>(a, stream);
  };
  return with_type(dtype, typed);
}

template <bool layer>
int backward(const BackwardArguments& a, void* dweight, void* dbias, Dtype dtype, void* stream) {
  if (a.width == 0) return 0;
  int error = 0;
  if (a.rows > 0) {
    const bool aligned = is_aligned(a.dy) && is_aligned(a.dsummed) && is_aligned(a.x) && is_aligned(a.weight) &&
                         is_aligned(a.dx) && is_aligned(a.partial_dweight) && is_aligned(a.partial_dbias);
    const auto typed = [&]<typename Element>() {
      constexpr int wide = widest_pack<Element>;
      if (aligned && a.width % wide == 0) return launch_backward<Element, wide, layer>(a, stream);
      return launch_backward<Element, 1, layer>(a, stream);
    };
    error = with_type(dtype, typed);
  }
  const int partials = a.rows > 0 ? a.partials : 0;  // no rows: the sums are zeros
  const dim3 grid(static_cast<unsigned>((a.width + warp_size - 1) / warp_size));
  const auto add_up = [&](const float* partial, void* sum) {
    if (error == 0 && sum != nullptr) {
      error = launch(add_partials, grid, dim3(warp_size, warp_size), 0, stream, partial, sum, a.width, partials,
                     a.weight_dtype);
    }
  };
  add_up(a.partial_dweight, dweight);
  add_up(a.partial_dbias, dbias);
  return error;
}

}  // namespace
}  // namespace datahall

using datahall::Dtype;

extern "C" {

int datahall_rms_norm_forward(const void* x, const void* residual, const void* weight, void* y, void* summed,
                              float* rstd, long long rows, long long width, float epsilon, int dtype, int weight_dtype,
                              void* stream) {
  return datahall::forward<false>(
      {x, residual, weight, nullptr, y, summed, nullptr, rstd, rows, width, epsilon, static_cast<Dtype>(weight_dtype)},
      static_cast<Dtype>(dtype), stream);
}

int datahall_layer_norm_forward(const void* x, const void* residual, const void* weight, const void* bias, void* y,
                                void* summed, float* mean, float* rstd, long long rows, long long width, float epsilon,
                                int dtype, int weight_dtype, void* stream) {
  return datahall::forward<true>(
      {x, residual, weight, bias, y, summed, mean, rstd, rows, width, epsilon, static_cast<Dtype>(weight_dtype)},
      static_cast<Dtype>(dtype), stream);
}

// How many rows `partial_dweight` and `partial_dbias` have in the backward pass of so many rows.
int datahall_norm_partials(long long rows, long long width, int multiprocessors) {
  constexpr long long rows_each = 4;  // at least: what a block writes of its own stays small beside what it reads
  constexpr long long threads = 1024;  // of a multiprocessor: half of what it holds, for kernels of many registers
  const datahall::Shape shape = datahall::backward_shape(width, 8, false);
  const long long most = multiprocessors * threads / (shape.block.x * shape.block.y);
  const long long share = rows / (rows_each * shape.block.y);
  // More parts of the rows than these are nobody's gain where each thread has a column.
  return static_cast<int>(std::clamp(share, 1LL, shape.packs == 0 ? std::min(most, 64LL) : most));
}

int datahall_rms_norm_backward(const void* dy, const void* dsummed, const void* x, const void* weight,
                               const float* rstd, void* dx, float* partial_dweight, void* dweight, long long rows,
                               long long width, int partials, int dtype, int weight_dtype, void* stream) {
  return datahall::backward<false>({dy, dsummed, x, weight, nullptr, rstd, dx, partial_dweight, nullptr, rows, width,
                                    partials, static_cast<Dtype>(weight_dtype)},
                                   dweight, nullptr, static_cast<Dtype>(dtype), stream);
}

int datahall_layer_norm_backward(const void* dy, const void* dsummed, const void* x, const void* weight,
                                 const float* mean, const float* rstd, void* dx, float* partial_dweight,
                                 float* partial_dbias, void* dweight, void* dbias, long long rows, long long width,
                                 int partials, int dtype, int weight_dtype, void* stream) {
  return datahall::backward<true>({dy, dsummed, x, weight, mean, rstd, dx, partial_dweight, partial_dbias, rows, width,
                                   partials, static_cast<Dtype>(weight_dtype)},
                                  dweight, dbias, static_cast<Dtype>(dtype), stream);
}

}  // extern "C"
