// Sums and means of rows of a table, bag by bag, and their gradients, without an atomic: equal inputs give equal bits.
//
// Forward: y[bag] = sum of weight * table[index] over the bag's entries, or their mean. A bag without entries that
// count has zeros. A bag with an index that is no row, or with offsets that are none, is NaN: it shows, and nothing is
// read.
//
// Backward: the caller sorts the entries by row, so that what belongs to a row is a segment, which is added up in order
// and rounded once. A long segment (a row that everybody looks up) is a whole block's. Rows without entries have zeros,
// or, in the sparse gradient, are not there.
//
// Sums are in float32, in a fixed order. A row is shared by the lanes of a group, a pack of 16 bytes each where the
// width allows it; more columns are more blocks.
#include "launchers/embedding_bag.h"

#include "dtypes.cuh"
#include "platform.cuh"
#include "reduce.cuh"

namespace datahall {
namespace {

constexpr int threads = 256;
constexpr int ahead = 4;                 // loads that are under way at a time
constexpr long long long_segment = 128;  // entries; more are shared by the groups of a block

// Indices of either width.
struct Indices {
  const void* of;
  int bytes;

  __device__ __forceinline__ long long read(long long at) const {
    return bytes == 8 ? static_cast<const long long*>(of)[at] : static_cast<const int*>(of)[at];
  }
};

// How threads share out columns: groups of `lanes` threads, each with a pack, and blocks along y for what is left.
struct Layout {
  int lanes;
  int tiles;

  static Layout of(long long width, int count) {
    const long long packs = (width + count - 1) / count;
    int lanes = 1;
    while (lanes < warp_size && lanes < packs) lanes *= 2;
    return {lanes, static_cast<int>((packs + lanes - 1) / lanes)};
  }

  int groups() const { return threads / lanes; }
  dim3 grid(long long items) const {
    return dim3(static_cast<unsigned>((items + groups() - 1) / groups()), static_cast<unsigned>(tiles));
  }
};

struct ForwardArguments {
  const void* table;
  Indices indices;
  Indices offsets;
  const void* weights;
  void* y;
  int* counts;
  long long rows;
  long long width;
  long long entries;
  long long bags;
  long long padding;
  int lanes;
  bool mean;
};

template <typename Element>
__device__ __forceinline__ float read_weight(const void* weights, long long at) {
  return weights == nullptr ? 1.0f : Pack<Element, 1>::read(static_cast<const Element*>(weights) + at).get(0);
}

template <typename Element, int count>
__global__ void __launch_bounds__(threads, 1) embedding_bag(ForwardArguments a) {
  const int lane = static_cast<int>(threadIdx.x) % a.lanes;
  const int group = static_cast<int>(threadIdx.x) / a.lanes;
  const long long bag = static_cast<long long>(blockIdx.x) * (threads / a.lanes) + group;
  const long long column = (static_cast<long long>(blockIdx.y) * a.lanes + lane) * count;
  if (bag >= a.bags || column >= a.width) return;
  const auto* table = static_cast<const Element*>(a.table) + column;
  const long long begin = a.offsets.read(bag), end = bag + 1 < a.bags ? a.offsets.read(bag + 1) : a.entries;
  bool is_right = 0 <= begin && begin <= end && end <= a.entries;
  float sums[count] = {};
  int counted = 0;
  for (long long at = begin; is_right && at < end; at += ahead) {
    Pack<Element, count> packs[ahead];
    float weights[ahead];
    bool counts[ahead];
#pragma unroll
    for (int k = 0; k < ahead; ++k) {
      counts[k] = false;
      if (at + k < end) {
        const long long index = a.indices.read(at + k);
        is_right = is_right && 0 <= index && index < a.rows;
        counts[k] = is_right && index != a.padding;
        if (counts[k]) {
          packs[k] = Pack<Element, count>::read(table + index * a.width);
          weights[k] = read_weight<Element>(a.weights, at + k);
        }
      }
    }
#pragma unroll
    for (int k = 0; k < ahead; ++k) {
      if (counts[k]) {
        ++counted;
#pragma unroll
        for (int i = 0; i < count; ++i) sums[i] += weights[k] * packs[k].get(i);
      }
    }
  }
  const float divisor = a.mean && counted > 0 ? static_cast<float>(counted) : 1.0f;
#pragma unroll
  for (int i = 0; i < count; ++i) sums[i] = is_right ? sums[i] / divisor : __uint_as_float(0x7fffffffu);
  Pack<Element, count>::of(sums).write(static_cast<Element*>(a.y) + bag * a.width + column);
  if (a.counts != nullptr && column == 0) a.counts[bag] = counted;
}

struct BackwardArguments {
  const void* dy;
  Indices sorted;
  const long long* positions;
  const long long* bag_of;
  const long long* starts;
  const void* weights;
  const int* counts;
  void* gradient;
  long long rows;
  long long width;
  long long entries;
  long long bags;
  long long segments;
  long long padding;
  int lanes;
  bool sparse;
};

struct Segment {
  long long begin;
  long long end;

  // Nothing, for one that is not there.
  static __device__ __forceinline__ Segment read(const BackwardArguments& a, long long segment) {
    if (segment >= a.segments) return {0, 0};
    const long long begin = a.starts[segment];
    const long long end = segment + 1 < a.segments ? min(a.starts[segment + 1], a.entries) : a.entries;
    return 0 <= begin && begin < end ? Segment{begin, end} : Segment{0, 0};
  }
};

// Adds up what the entries from `begin` on, of those in order, pass to their row.
template <typename Element, int count>
__device__ __forceinline__ void add_up(
    const BackwardArguments& a, long long column, long long begin, long long end, float (&sums)[count]) {
  const auto* dy = static_cast<const Element*>(a.dy) + column;
#pragma unroll
  for (int i = 0; i < count; ++i) sums[i] = 0.0f;
  for (long long at = begin; at < end; at += ahead) {
    Pack<Element, count> packs[ahead];
    float scales[ahead];
    bool counts[ahead];
#pragma unroll
    for (int k = 0; k < ahead; ++k) {
      counts[k] = false;
      if (at + k < end) {
        const long long position = a.positions[at + k];
        if (position < 0 || position >= a.entries) continue;
        const long long bag = a.bag_of[position];
        if (bag < 0 || bag >= a.bags) continue;
        counts[k] = true;
        packs[k] = Pack<Element, count>::read(dy + bag * a.width);
        scales[k] = read_weight<Element>(a.weights, position);
        if (a.counts != nullptr) scales[k] /= static_cast<float>(max(a.counts[bag], 1));
      }
    }
#pragma unroll
    for (int k = 0; k < ahead; ++k) {
      if (counts[k]) {
#pragma unroll
        for (int i = 0; i < count; ++i) sums[i] += scales[k] * packs[k].get(i);
      }
    }
  }
}

// Writes the gradient of a segment's row. Entries of the padding and of no row have none.
template <typename Element, int count>
__device__ __forceinline__ void write_gradient(
    const BackwardArguments& a, long long segment, long long begin, long long column, float (&sums)[count]) {
  const long long row = a.sorted.read(begin);
  const bool has_one = 0 <= row && row < a.rows && row != a.padding;
  if (!has_one && !a.sparse) return;
#pragma unroll
  for (int i = 0; i < count; ++i) sums[i] = has_one ? sums[i] : 0.0f;
  auto* to = static_cast<Element*>(a.gradient) + (a.sparse ? segment : row) * a.width + column;
  Pack<Element, count>::of(sums).write(to);
}

template <typename Element, int count>
__global__ void __launch_bounds__(threads, 1) embedding_bag_backward(BackwardArguments a) {
  __shared__ float parts[threads][count];
  const int lane = static_cast<int>(threadIdx.x) % a.lanes, group = static_cast<int>(threadIdx.x) / a.lanes;
  const int groups = threads / a.lanes;
  const long long first = static_cast<long long>(blockIdx.x) * groups;
  const long long column = (static_cast<long long>(blockIdx.y) * a.lanes + lane) * count;
  const bool has_columns = column < a.width;
  float sums[count];

  const Segment own = Segment::read(a, first + group);
  const bool is_long = own.end - own.begin > long_segment;
  if (has_columns && !is_long && own.begin < own.end) {
    add_up<Element, count>(a, column, own.begin, own.end, sums);
    write_gradient<Element, count>(a, first + group, own.begin, column, sums);
  }
  if (!__syncthreads_or(is_long)) return;
  for (long long segment = first; segment < first + groups; ++segment) {
    const Segment shared = Segment::read(a, segment);
    if (shared.end - shared.begin <= long_segment) continue;
    const long long part = (shared.end - shared.begin + groups - 1) / groups;
    const long long begin = min(shared.begin + group * part, shared.end);
    add_up<Element, count>(a, column, begin, has_columns ? min(begin + part, shared.end) : begin, sums);
    __syncthreads();  // all have read the parts before
#pragma unroll
    for (int i = 0; i < count; ++i) parts[threadIdx.x][i] = sums[i];
    __syncthreads();
    if (has_columns && group == 0) {
      for (int of = 1; of < groups; ++of) {
#pragma unroll
        for (int i = 0; i < count; ++i) sums[i] += parts[of * a.lanes + lane][i];
      }
      write_gradient<Element, count>(a, segment, shared.begin, column, sums);
    }
  }
}

struct WeightArguments {
  const void* dy;
  const void* table;
  Indices indices;
  const long long* bag_of;
  void* dweights;
  long long rows;
  long long width;
  long long entries;
  long long bags;
  long long padding;
};

// A warp has an entry.
template <typename Element, int count>
__global__ void __launch_bounds__(threads, 1) embedding_bag_weight_gradient(WeightArguments a) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  const int warp = static_cast<int>(threadIdx.x) / warp_size;
  const long long entry = static_cast<long long>(blockIdx.x) * (threads / warp_size) + warp;
  if (entry >= a.entries) return;  // a whole warp, or nobody
  const long long index = a.indices.read(entry), bag = a.bag_of[entry];
  float sum = 0.0f;
  if (0 <= index && index < a.rows && index != a.padding && 0 <= bag && bag < a.bags) {
    const auto* dy = static_cast<const Element*>(a.dy) + bag * a.width;
    const auto* row = static_cast<const Element*>(a.table) + index * a.width;
    for (long long column = lane * count; column < a.width; column += warp_size * count) {
      const auto one = Pack<Element, count>::read(dy + column), other = Pack<Element, count>::read(row + column);
#pragma unroll
      for (int i = 0; i < count; ++i) sum += one.get(i) * other.get(i);
    }
  }
  const float all[1] = {warp_sum(sum)};
  if (lane == 0) Pack<Element, 1>::of(all).write(static_cast<Element*>(a.dweights) + entry);
}

// `call` for the type of a code and the widest pack that all addresses and the width allow.
template <typename Call>
int with_pack(int dtype, long long width, bool is_aligned, const Call& call) {
  return with_type(static_cast<Dtype>(dtype), [&]<typename Element>() {
    constexpr int wide = widest_pack<Element>;
    if (is_aligned && width % wide == 0) return call.template operator()<Element, wide>();
    return call.template operator()<Element, 1>();
  });
}

bool is_sized(long long rows, long long width, long long entries, long long items, int index_bytes) {
  constexpr long long most = 0x7fffffffLL;  // blocks
  return rows >= 0 && width > 0 && width <= 65535 && entries >= 0 && items >= 0 && items <= most &&
         (index_bytes == 4 || index_bytes == 8);
}

}  // namespace
}  // namespace datahall

extern "C" {

int datahall_embedding_bag_forward(const void* table, const void* indices, const void* offsets, const void* weights,
                                   void* y, int* counts, long long rows, long long width, long long entries,
                                   long long bags, long long padding, int mean, int index_bytes, int dtype,
                                   void* stream) {
  using namespace datahall;
  if (!is_sized(rows, width, entries, bags, index_bytes) || (mean != 0 && weights != nullptr)) {
    return cudaErrorInvalidValue;
  }
  if (bags == 0) return 0;
  return with_pack(dtype, width, is_aligned(table) && is_aligned(y), [&]<typename Element, int count>() {
    const Layout layout = Layout::of(width, count);
    const ForwardArguments a{table, {indices, index_bytes}, {offsets, index_bytes}, weights, y, counts, rows,
                             width, entries, bags, padding, layout.lanes, mean != 0};
    return launch(embedding_bag<Element, count>, layout.grid(bags), dim3(threads), 0, stream, a);
  });
}

int datahall_embedding_bag_backward(const void* dy, const void* sorted, const long long* positions,
                                    const long long* bag_of, const long long* starts, const void* weights,
                                    const int* counts, void* gradient, long long rows, long long width,
                                    long long entries, long long bags, long long segments, long long padding,
                                    int sparse, int index_bytes, int dtype, void* stream) {
  using namespace datahall;
  if (!is_sized(rows, width, entries, segments, index_bytes) || bags < 0) return cudaErrorInvalidValue;
  return with_pack(dtype, width, is_aligned(dy) && is_aligned(gradient), [&]<typename Element, int count>() -> int {
    if (sparse == 0 && rows > 0) {
      const auto bytes = static_cast<std::size_t>(rows) * static_cast<std::size_t>(width) * sizeof(Element);
      if (const int error = clear(gradient, bytes, stream); error != 0) return error;
    }
    if (segments == 0 || entries == 0) return 0;
    const Layout layout = Layout::of(width, count);
    const BackwardArguments a{dy, {sorted, index_bytes}, positions, bag_of, starts, weights, counts, gradient, rows,
                              width, entries, bags, segments, padding, layout.lanes, sparse != 0};
    return launch(embedding_bag_backward<Element, count>, layout.grid(segments), dim3(threads), 0, stream, a);
  });
}

int datahall_embedding_bag_weight_gradient(const void* dy, const void* table, const void* indices,
                                           const long long* bag_of, void* dweights, long long rows, long long width,
                                           long long entries, long long bags, long long padding, int index_bytes,
                                           int dtype, void* stream) {
  using namespace datahall;
  if (!is_sized(rows, width, entries, entries, index_bytes) || bags < 0) return cudaErrorInvalidValue;
  if (entries == 0) return 0;
  return with_pack(dtype, width, is_aligned(dy) && is_aligned(table), [&]<typename Element, int count>() {
    constexpr int in_block = threads / warp_size;
    const WeightArguments a{dy, table, {indices, index_bytes}, bag_of, dweights, rows, width, entries, bags, padding};
    const dim3 grid(static_cast<unsigned>((entries + in_block - 1) / in_block));
    return launch(embedding_bag_weight_gradient<Element, count>, grid, dim3(threads), 0, stream, a);
  });
}

}  // extern "C"
