// Keys and values of decoding in pages (Kwon et al., SOSP 2023): what is in a page, and how its elements are kept.
//
// A cache is [pages, kv heads, page_size, head_dim]: what one head reads of a page lies in one piece. Elements are of
// the data's own type, or have 8 bits: fp8 (e4m3) with one scale for the cache, or int8 with a scale for each token and
// head, [pages, kv heads, page_size].
#pragma once

#include "dtypes.cuh"
#include "platform.cuh"

namespace datahall {

inline constexpr int page_size = 16;

enum class CacheKind : int { same = 0, fp8 = 1, int8 = 2 };

struct PagedCache {
  void* elements;
  float* scales;  // int8: one for each token and head; fp8: one for all; same: null
};

// Where the row of a token and head begins, in rows of `head_dim` elements; also the place of its scale.
__device__ __forceinline__ long long cache_row(long long page, int in_page, int head, int heads) {
  return (page * heads + head) * page_size + in_page;
}

}  // namespace datahall
