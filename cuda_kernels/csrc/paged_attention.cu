// Attention of one new token per sequence over keys and values in pages, the step that decoding repeats.
//
// Bound by reading keys and values once. A block has one sequence, one kv head with up to eight of its query heads
// (what is read serves them all), and a part of the context: long contexts are split so that few sequences fill a
// device (Flash-Decoding; Dao et al., 2023), and a second kernel joins the parts. Each warp goes through the part by
// itself, some tokens a step, with a running maximum and sum (Milakov and Gimelshein, 2018); the lanes that have a
// token read 16 bytes of it each. Sums are in float32. No tensor cores: up to eight query heads there is nothing to gain.
#include <algorithm>

#include "dtypes.cuh"
#include "launchers/paged_attention.h"
#include "paged_cache.cuh"
#include "platform.cuh"
#include "reduce.cuh"

namespace datahall {
namespace {

constexpr int warps = 4;
constexpr int threads = warps * warp_size;
constexpr float log2_of_e = 1.4426950408889634f;

struct PagedAttentionArguments {
  const void* q;           // [sequences, q heads, head_dim]
  PagedCache keys;
  PagedCache values;
  const int* pages;        // [sequences, most_pages]
  const int* lengths;      // [sequences]: tokens of context, the new one with them
  void* out;               // [sequences, q heads, head_dim]
  float* partial_out;      // [sequences, q heads, splits, head_dim]; null where there is one split
  float* partial_sums;     // [sequences, q heads, splits, 2]: greatest score, sum
  long long number_of_pages;
  int most_pages;
  int q_heads;
  int kv_heads;
  int splits;
  float scale;
};

// How the elements of a cache lie in a load: of 16 bytes, or 8 where an element is a byte. A thread has queries and sums
// for each element of a load, and registers for no more than eight of them.
template <typename Element, CacheKind kind>
struct CacheLoad {
  static constexpr int bytes = kind == CacheKind::same ? static_cast<int>(sizeof(Element)) : 1;
  static constexpr int count = bytes == 1 ? 8 : 16 / bytes;

  static __device__ __forceinline__ uint4 read(const void* elements, long long at) {
    const auto* from = static_cast<const unsigned char*>(elements) + at * bytes;
    if constexpr (bytes > 1) return *reinterpret_cast<const uint4*>(from);
    const uint2 half = *reinterpret_cast<const uint2*>(from);
    return make_uint4(half.x, half.y, 0u, 0u);
  }
  static __device__ __forceinline__ float get(const uint4& all, int i) {
    const int of = i * bytes / 4;
    const unsigned word = of == 0 ? all.x : of == 1 ? all.y : of == 2 ? all.z : all.w;
    if constexpr (kind == CacheKind::same) {
      if constexpr (sizeof(Element) == 4) return __uint_as_float(word);
      if constexpr (sizeof(Element) == 2) {
        return i % 2 == 0 ? Bits<Element>::widen(static_cast<unsigned short>(word)) : Bits<Element>::widen_high(word);
      }
    } else if constexpr (kind == CacheKind::fp8) {
      const auto code = static_cast<unsigned char>(word >> (8 * (i % 4)));
      return __half2float(__ushort_as_half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3).x));
    } else {
      // 2^23 + u is exact, and so is what is left when 2^23 + 128 is taken off.
      const unsigned bits = __byte_perm(word ^ 0x80808080u, 0x4b000000u, 0x7440 + i % 4);
      return __uint_as_float(bits) - (8388608.0f + 128.0f);
    }
  }
};

template <typename Element, CacheKind kind, int head_dim, int heads>
__global__ void __launch_bounds__(threads, 2) paged_attention(PagedAttentionArguments a) {
  using Load = CacheLoad<Element, kind>;
  constexpr int loads_of_row = head_dim / Load::count;
  constexpr int lanes = loads_of_row < warp_size ? loads_of_row : warp_size;  // that share a token
  constexpr int loads = loads_of_row / lanes;                                 // of a lane, of one token
  constexpr int at_once = warp_size / lanes;                                  // tokens that a warp reads together
  constexpr int passes = page_size / at_once < 4 ? page_size / at_once : 4;
  constexpr int step = at_once * passes;                                      // tokens that a warp takes together
  constexpr int of_lane = loads * Load::count;                                // elements of a row that a lane has

  const int group = a.q_heads / a.kv_heads;
  const int groups = (group + heads - 1) / heads;
  const int kv_head = static_cast<int>(blockIdx.x) / groups;
  const int first_head = kv_head * group + static_cast<int>(blockIdx.x) % groups * heads;
  const int there = min(heads, (kv_head + 1) * group - first_head);
  const int sequence = static_cast<int>(blockIdx.y), split = static_cast<int>(blockIdx.z);
  const int lane = static_cast<int>(threadIdx.x), warp = static_cast<int>(threadIdx.y);
  const int in_row = lane % lanes * Load::count;  // + load * lanes * count: neighbours read neighbours
  const float fp8_key = kind == CacheKind::fp8 ? *a.keys.scales : 1.0f;
  const float fp8_value = kind == CacheKind::fp8 ? *a.values.scales : 1.0f;

  // Scores are in powers of two, so that a step has no multiplication by log2(e).
  float q[heads][of_lane];
#pragma unroll
  for (int h = 0; h < heads; ++h) {
#pragma unroll
    for (int i = 0; i < of_lane; ++i) {
      const int column = in_row + i / Load::count * lanes * Load::count + i % Load::count;
      const long long at = (static_cast<long long>(sequence) * a.q_heads + first_head + h) * head_dim + column;
      q[h][i] = h < there ? Pack<Element, 1>::read(static_cast<const Element*>(a.q) + at).get(0) : 0.0f;
      q[h][i] *= a.scale * log2_of_e * fp8_key;
    }
  }
  const float lowest = -__uint_as_float(0x7f800000u);
  float most[heads], sum[heads] = {}, found[heads][of_lane] = {};
#pragma unroll
  for (int h = 0; h < heads; ++h) most[h] = lowest;

  const int length = a.lengths[sequence];
  const int steps = (length + step - 1) / step;
  const int per_split = (steps + a.splits - 1) / a.splits;
  const int last = min(steps, (split + 1) * per_split);
  for (int at = split * per_split + warp; at < last; at += warps) {
    uint4 keys[passes][loads], values[passes][loads];
    float key_scale[passes], value_scale[passes];
#pragma unroll
    for (int pass = 0; pass < passes; ++pass) {
      const int token = at * step + pass * at_once + lane / lanes;
      key_scale[pass] = value_scale[pass] = 1.0f;
      const bool listed = token < length && token / page_size < a.most_pages;
      const long long page =
          listed ? a.pages[static_cast<long long>(sequence) * a.most_pages + token / page_size] : -1;
      const bool exists = page >= 0 && page < a.number_of_pages;
      const long long row = exists ? cache_row(page, token % page_size, kv_head, a.kv_heads) : 0;
#pragma unroll
      for (int load = 0; load < loads; ++load) {
        keys[pass][load] = values[pass][load] = make_uint4(0u, 0u, 0u, 0u);
        if (exists) {
          const long long element = row * head_dim + in_row + load * lanes * Load::count;
          keys[pass][load] = Load::read(a.keys.elements, element);
          values[pass][load] = Load::read(a.values.elements, element);
        }
      }
      if (kind == CacheKind::int8 && exists) {
        key_scale[pass] = a.keys.scales[row];
        value_scale[pass] = a.values.scales[row];
      }
      // A token whose page does not exist, or is not in the table, makes NaN: it is never read, and never silently left out.
      if (token < length && !exists) key_scale[pass] = value_scale[pass] = __uint_as_float(0x7fffffffu);
    }
    float score[passes][heads];
#pragma unroll
    for (int pass = 0; pass < passes; ++pass) {
#pragma unroll
      for (int h = 0; h < heads; ++h) score[pass][h] = 0.0f;
#pragma unroll
      for (int i = 0; i < of_lane; ++i) {
        const float key = Load::get(keys[pass][i / Load::count], i % Load::count);
#pragma unroll
        for (int h = 0; h < heads; ++h) score[pass][h] += q[h][i] * key;
      }
      const bool counts = at * step + pass * at_once + lane / lanes < length;
#pragma unroll
      for (int h = 0; h < heads; ++h) {
#pragma unroll
        for (int distance = lanes / 2; distance > 0; distance /= 2) {
          score[pass][h] += __shfl_xor_sync(whole_warp, score[pass][h], distance);
        }
        score[pass][h] = counts ? score[pass][h] * key_scale[pass] : lowest;
      }
    }
#pragma unroll
    for (int h = 0; h < heads; ++h) {
      float more = most[h];
#pragma unroll
      for (int pass = 0; pass < passes; ++pass) more = greater(more, score[pass][h]);
#pragma unroll
      for (int distance = warp_size / 2; distance >= lanes; distance /= 2) {
        more = greater(more, __shfl_xor_sync(whole_warp, more, distance));
      }
      const float kept = exp2f(most[h] - more);  // of what was found so far; a step has a token at least, so more > -inf
      most[h] = more;
      sum[h] *= kept;
#pragma unroll
      for (int i = 0; i < of_lane; ++i) found[h][i] *= kept;
#pragma unroll
      for (int pass = 0; pass < passes; ++pass) {
        score[pass][h] = exp2f(score[pass][h] - more);
        sum[h] += score[pass][h];
        score[pass][h] *= value_scale[pass];
      }
    }
#pragma unroll
    for (int pass = 0; pass < passes; ++pass) {
#pragma unroll
      for (int i = 0; i < of_lane; ++i) {
        const float value = Load::get(values[pass][i / Load::count], i % Load::count);
#pragma unroll
        for (int h = 0; h < heads; ++h) found[h][i] += score[pass][h] * value;
      }
    }
  }

  // Lanes that had other tokens of the same elements, then the other warps.
#pragma unroll
  for (int h = 0; h < heads; ++h) {
#pragma unroll
    for (int distance = warp_size / 2; distance >= lanes; distance /= 2) {
      sum[h] += __shfl_xor_sync(whole_warp, sum[h], distance);
#pragma unroll
      for (int i = 0; i < of_lane; ++i) found[h][i] += __shfl_xor_sync(whole_warp, found[h][i], distance);
    }
  }
  __shared__ float of_warp[warps][heads][head_dim];
  __shared__ float sums_of_warp[warps][heads][2];
#pragma unroll
  for (int h = 0; h < heads; ++h) {
    if (lane < lanes) {
#pragma unroll
      for (int i = 0; i < of_lane; ++i) {
        of_warp[warp][h][in_row + i / Load::count * lanes * Load::count + i % Load::count] = found[h][i];
      }
    }
    if (lane == 0) {
      sums_of_warp[warp][h][0] = most[h];
      sums_of_warp[warp][h][1] = sum[h];
    }
  }
  __syncthreads();
  for (int item = warp * warp_size + lane; item < there * head_dim; item += threads) {
    const int h = item / head_dim, column = item % head_dim;
    float all_most = lowest, all_sum = 0.0f, value = 0.0f;
#pragma unroll
    for (int w = 0; w < warps; ++w) all_most = greater(all_most, sums_of_warp[w][h][0]);
#pragma unroll
    for (int w = 0; w < warps; ++w) {
      // A warp without a token has a maximum of -inf, which takes part with 0.
      const float part = sums_of_warp[w][h][0] == lowest ? 0.0f : exp2f(sums_of_warp[w][h][0] - all_most);
      all_sum += part * sums_of_warp[w][h][1];
      value += part * of_warp[w][h][column];
    }
    value *= fp8_value;
    const long long head = static_cast<long long>(sequence) * a.q_heads + first_head + h;
    if (a.splits == 1) {
      const float whole[1] = {length > 0 ? value / all_sum : 0.0f};
      Pack<Element, 1>::of(whole).write(static_cast<Element*>(a.out) + head * head_dim + column);
    } else {
      const long long part = head * a.splits + split;
      a.partial_out[part * head_dim + column] = value;
      if (column == 0) {
        a.partial_sums[part * 2] = all_most;
        a.partial_sums[part * 2 + 1] = all_sum;
      }
    }
  }
}

// Joins the splits of a head: blockIdx = (query head, sequence), a thread has a column.
template <typename Element>
__global__ void __launch_bounds__(256) join_splits(PagedAttentionArguments a, int head_dim) {
  const int column = static_cast<int>(threadIdx.x);
  if (column >= head_dim) return;
  const long long head = static_cast<long long>(blockIdx.y) * a.q_heads + blockIdx.x;
  const float lowest = -__uint_as_float(0x7f800000u);
  const float* sums = a.partial_sums + head * a.splits * 2;
  float most = lowest, sum = 0.0f, value = 0.0f;
  for (int split = 0; split < a.splits; ++split) most = greater(most, sums[split * 2]);
  for (int split = 0; split < a.splits; ++split) {
    const float part = sums[split * 2] == lowest ? 0.0f : exp2f(sums[split * 2] - most);
    sum += part * sums[split * 2 + 1];
    value += part * a.partial_out[(head * a.splits + split) * head_dim + column];
  }
  const float whole[1] = {a.lengths[blockIdx.y] > 0 ? value / sum : 0.0f};
  Pack<Element, 1>::of(whole).write(static_cast<Element*>(a.out) + head * head_dim + column);
}

// Query heads that one block serves.
int heads_at_once(int group) { return group >= 8 ? 8 : group > 2 ? 4 : group; }

template <typename Element, CacheKind kind, int head_dim>
int launch_heads(const PagedAttentionArguments& a, int sequences, void* stream) {
  const int group = a.q_heads / a.kv_heads, heads = heads_at_once(group);
  const dim3 grid(static_cast<unsigned>(a.kv_heads * ((group + heads - 1) / heads)), static_cast<unsigned>(sequences),
                  static_cast<unsigned>(a.splits));
  const dim3 block(warp_size, warps);
  int error = 0;
  if (heads == 1) error = launch(paged_attention<Element, kind, head_dim, 1>, grid, block, 0, stream, a);
  if (heads == 2) error = launch(paged_attention<Element, kind, head_dim, 2>, grid, block, 0, stream, a);
  if (heads == 4) error = launch(paged_attention<Element, kind, head_dim, 4>, grid, block, 0, stream, a);
  if (heads == 8) error = launch(paged_attention<Element, kind, head_dim, 8>, grid, block, 0, stream, a);
  if (error != 0 || a.splits == 1) return error;
  const dim3 all(static_cast<unsigned>(a.q_heads), static_cast<unsigned>(sequences));
  return launch(join_splits<Element>, all, dim3(static_cast<unsigned>(head_dim)), 0, stream, a, head_dim);
}

template <typename Element, CacheKind kind>
int launch_dim(const PagedAttentionArguments& a, int sequences, int head_dim, void* stream) {
  switch (head_dim) {
    case 64:
      return launch_heads<Element, kind, 64>(a, sequences, stream);
    case 128:
      return launch_heads<Element, kind, 128>(a, sequences, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

template <typename Element>
int launch_kind(const PagedAttentionArguments& a, int sequences, int head_dim, int kind, void* stream) {
  if (static_cast<CacheKind>(kind) == CacheKind::same) {
    return launch_dim<Element, CacheKind::same>(a, sequences, head_dim, stream);
  }
  if constexpr (sizeof(Element) == 2) {  // beside float32 data nobody saves memory on the cache
    if (static_cast<CacheKind>(kind) == CacheKind::fp8) {
      return launch_dim<Element, CacheKind::fp8>(a, sequences, head_dim, stream);
    }
    if (static_cast<CacheKind>(kind) == CacheKind::int8) {
      return launch_dim<Element, CacheKind::int8>(a, sequences, head_dim, stream);
    }
  }
  return cudaErrorInvalidValue;
}

}  // namespace
}  // namespace datahall

extern "C" {

int datahall_paged_splits(int sequences, int q_heads, int kv_heads, int most_tokens, int multiprocessors) {
  constexpr int least = 64;  // tokens of a part: below, joining costs more than it brings
  const int group = q_heads / kv_heads, heads = datahall::heads_at_once(group);
  const int blocks = std::max(1, sequences * kv_heads * ((group + heads - 1) / heads));
  return std::clamp(2 * multiprocessors / blocks, 1, std::clamp((most_tokens + least - 1) / least, 1, 256));
}

int datahall_paged_attention(const void* q, void* keys, void* values, float* key_scales, float* value_scales,
                             const int* pages, const int* lengths, void* out, float* partial_out, float* partial_sums,
                             long long number_of_pages, int sequences, int most_pages, int q_heads, int kv_heads,
                             int head_dim, int splits, float scale, int cache_kind, int dtype, void* stream) {
  using namespace datahall;
  if (sequences == 0) return 0;
  const bool shaped = sequences > 0 && sequences <= 65535 && kv_heads > 0 && q_heads > 0 && q_heads % kv_heads == 0 &&
                      splits > 0 && splits <= 65535 && most_pages >= 0;
  if (!shaped || !is_aligned(keys) || !is_aligned(values)) return cudaErrorInvalidValue;
  const PagedAttentionArguments a{q, {keys, key_scales}, {values, value_scales}, pages, lengths, out, partial_out,
                                  partial_sums, number_of_pages, most_pages, q_heads, kv_heads, splits, scale};
  return with_type(static_cast<Dtype>(dtype), [&]<typename Element>() {
    return launch_kind<Element>(a, sequences, head_dim, cache_kind, stream);
  });
}

}  // extern "C"
