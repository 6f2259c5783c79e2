// What stands between the projection and the attention of a decoder, in one launch: RMSNorm of each head of q and k,
// rotary positions (Su et al., 2021), and k and v into the paged cache.
//
// A warp has one head of one token. A thread has the two elements that a rotation mixes, so no data goes between
// threads but for the sums. All in float32 from reading to writing: rounded once.
#include "dtypes.cuh"
#include "launchers/rope_append.h"
#include "paged_cache.cuh"
#include "platform.cuh"
#include "reduce.cuh"

namespace datahall {
namespace {

constexpr int warps = 4;
constexpr int most_pairs = 4;  // of a thread: heads of up to 256 elements

struct RopeAppendArguments {
  const void* qkv;             // [tokens, q heads + 2 kv heads, head_dim]
  const long long* positions;  // [tokens]
  const long long* slots;      // [tokens]: page * page_size + place in it; negative: not kept
  const float* angles;         // [positions, rotary]: cosines of rotary / 2 pairs, then their sines
  const void* q_weight;        // [head_dim]; null: q is not normalised
  const void* k_weight;
  void* q;                     // [tokens, q heads, head_dim]
  PagedCache keys;
  PagedCache values;
  long long tokens;
  long long most_position;  // rows of angles
  long long most_slot;      // slots of the cache
  int q_heads;
  int kv_heads;
  int head_dim;
  int rotary;        // elements of a head that are rotated, from the first
  bool interleaved;  // neighbours are pairs, not halves
  float epsilon;
  Dtype weight_dtype;
};

struct Pair {
  int one, other;
};

// The elements of pair `index` of a head: rotated pairs first, then the rest two by two.
__device__ __forceinline__ Pair pair_of(const RopeAppendArguments& a, int index) {
  const int rotated = a.rotary / 2;
  if (index < rotated && !a.interleaved) return {index, index + rotated};
  return {2 * index, 2 * index + 1};
}

template <typename Element>
__device__ __forceinline__ void keep(const PagedCache& cache, CacheKind kind, long long row, int head_dim, Pair pair,
                                     const float (&two)[2], float most) {
  const long long at = row * head_dim;
  if (kind == CacheKind::same) {
    auto* to = static_cast<Element*>(cache.elements) + at;
    const float one[1] = {two[0]}, other[1] = {two[1]};
    Pack<Element, 1>::of(one).write(to + pair.one);
    Pack<Element, 1>::of(other).write(to + pair.other);
    return;
  }
  auto* to = static_cast<unsigned char*>(cache.elements) + at;
  unsigned codes[2];
  if (kind == CacheKind::fp8) {
    const float by = 1.0f / *cache.scales;
#pragma unroll
    for (int i = 0; i < 2; ++i) codes[i] = __nv_cvt_float_to_fp8(two[i] * by, __NV_SATFINITE, __NV_E4M3);
  } else {
    const float by = most > 0.0f ? 127.0f / most : 0.0f;
#pragma unroll
    for (int i = 0; i < 2; ++i) codes[i] = static_cast<unsigned>(static_cast<int>(rintf(two[i] * by)) & 0xff);
  }
  to[pair.one] = static_cast<unsigned char>(codes[0]);
  to[pair.other] = static_cast<unsigned char>(codes[1]);
}

template <typename Element>
__global__ void __launch_bounds__(warps* warp_size) rope_append(RopeAppendArguments a, CacheKind kind) {
  const int heads = a.q_heads + 2 * a.kv_heads;
  const long long item = static_cast<long long>(blockIdx.x) * warps + threadIdx.y;
  if (item >= a.tokens * heads) return;
  const long long token = item / heads;
  const int head = static_cast<int>(item % heads);
  const bool is_q = head < a.q_heads, is_v = head >= a.q_heads + a.kv_heads;
  const auto* from = static_cast<const Element*>(a.qkv) + item * a.head_dim;
  const int pairs = a.head_dim / 2;

  float kept[most_pairs][2] = {};
  float squares = 0.0f;
#pragma unroll
  for (int p = 0; p < most_pairs; ++p) {
    const int index = static_cast<int>(threadIdx.x) + p * warp_size;
    if (index < pairs) {
      const Pair pair = pair_of(a, index);
      kept[p][0] = Pack<Element, 1>::read(from + pair.one).get(0);
      kept[p][1] = Pack<Element, 1>::read(from + pair.other).get(0);
      squares += kept[p][0] * kept[p][0] + kept[p][1] * kept[p][1];
    }
  }
  const void* weight = is_q ? a.q_weight : a.k_weight;
  if (!is_v && weight != nullptr) {
    const float rstd = rsqrtf(warp_sum(squares) / static_cast<float>(a.head_dim) + a.epsilon);
#pragma unroll
    for (int p = 0; p < most_pairs; ++p) {
      const int index = static_cast<int>(threadIdx.x) + p * warp_size;
      if (index < pairs) {
        const Pair pair = pair_of(a, index);
        float factor[1];
        read_weights<Element, 1>(weight, a.weight_dtype, pair.one, 1.0f, factor);
        kept[p][0] *= rstd * factor[0];
        read_weights<Element, 1>(weight, a.weight_dtype, pair.other, 1.0f, factor);
        kept[p][1] *= rstd * factor[0];
      }
    }
  }
  if (!is_v) {
    const long long position = a.positions[token];
    const bool known = position >= 0 && position < a.most_position;
#pragma unroll
    for (int p = 0; p < most_pairs; ++p) {
      const int index = static_cast<int>(threadIdx.x) + p * warp_size;
      if (index < a.rotary / 2) {
        // A position that the table does not have makes NaN: it is never read from beyond.
        float cosine = __uint_as_float(0x7fffffffu), sine = cosine;
        if (known) {
          cosine = a.angles[position * a.rotary + index];
          sine = a.angles[position * a.rotary + a.rotary / 2 + index];
        }
        const float one = kept[p][0], other = kept[p][1];
        kept[p][0] = one * cosine - other * sine;
        kept[p][1] = other * cosine + one * sine;
      }
    }
  }
  if (is_q) {
    auto* to = static_cast<Element*>(a.q) + (token * a.q_heads + head) * a.head_dim;
#pragma unroll
    for (int p = 0; p < most_pairs; ++p) {
      const int index = static_cast<int>(threadIdx.x) + p * warp_size;
      if (index < pairs) {
        const Pair pair = pair_of(a, index);
        const float one[1] = {kept[p][0]}, other[1] = {kept[p][1]};
        Pack<Element, 1>::of(one).write(to + pair.one);
        Pack<Element, 1>::of(other).write(to + pair.other);
      }
    }
    return;
  }
  const long long slot = a.slots[token];
  if (slot < 0 || slot >= a.most_slot) return;
  const PagedCache& cache = is_v ? a.values : a.keys;
  const int kv_head = head - a.q_heads - (is_v ? a.kv_heads : 0);
  const long long row = cache_row(slot / page_size, static_cast<int>(slot % page_size), kv_head, a.kv_heads);
  float most = 0.0f;
  if (kind == CacheKind::int8) {
#pragma unroll
    for (int p = 0; p < most_pairs; ++p) most = greater(most, greater(fabsf(kept[p][0]), fabsf(kept[p][1])));
    most = warp_most(most);
    if (threadIdx.x == 0) cache.scales[row] = most / 127.0f;
  }
#pragma unroll
  for (int p = 0; p < most_pairs; ++p) {
    const int index = static_cast<int>(threadIdx.x) + p * warp_size;
    if (index < pairs) keep<Element>(cache, kind, row, a.head_dim, pair_of(a, index), kept[p], most);
  }
}

}  // namespace
}  // namespace datahall

extern "C" {

int datahall_rope_append(const void* qkv, const long long* positions, const long long* slots, const float* angles,
                         const void* q_weight, const void* k_weight, void* q, void* keys, void* values,
                         float* key_scales, float* value_scales, long long tokens, long long most_position,
                         long long most_slot, int q_heads, int kv_heads, int head_dim, int rotary, int interleaved,
                         float epsilon, int cache_kind, int dtype, int weight_dtype, void* stream) {
  using namespace datahall;
  if (tokens == 0) return 0;
  const bool shaped = tokens > 0 && q_heads > 0 && kv_heads > 0 && head_dim > 0 && head_dim % 2 == 0 &&
                      head_dim <= 2 * warp_size * most_pairs && rotary >= 0 && rotary % 2 == 0 && rotary <= head_dim;
  const long long blocks = (tokens * (q_heads + 2LL * kv_heads) + warps - 1) / warps;
  if (!shaped || blocks > 0x7fffffffLL || cache_kind < 0 || cache_kind > 2) return cudaErrorInvalidValue;
  const RopeAppendArguments a{qkv, positions, slots, angles, q_weight, k_weight, q, {keys, key_scales},
                              {values, value_scales}, tokens, most_position, most_slot, q_heads, kv_heads, head_dim,
                              rotary, interleaved != 0, epsilon, static_cast<Dtype>(weight_dtype)};
  const auto kind = static_cast<CacheKind>(cache_kind);
  const dim3 grid(static_cast<unsigned>(blocks)), block(warp_size, warps);
  return with_type(static_cast<Dtype>(dtype), [&]<typename Element>() {
    return launch(rope_append<Element>, grid, block, 0, stream, a, kind);
  });
}

}  // extern "C"
