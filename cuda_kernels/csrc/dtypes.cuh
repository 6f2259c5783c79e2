// Element types of tensors, and vectors of them in registers.
#pragma once

#include "platform.cuh"

namespace datahall {

// The codes that cross the plain-C boundary.
enum class Dtype : int { float32 = 0, bfloat16 = 1, float16 = 2 };

template <typename Element>
struct Bits;

template <>
struct Bits<float> {
  using Word = unsigned;
  static constexpr Dtype dtype = Dtype::float32;
  static __device__ __forceinline__ float widen(Word bits) { return __uint_as_float(bits); }
  static __device__ __forceinline__ Word round(float value) { return __float_as_uint(value); }
};

template <>
struct Bits<__nv_bfloat16> {
  using Word = unsigned short;
  static constexpr Dtype dtype = Dtype::bfloat16;
  static __device__ __forceinline__ float widen(Word bits) { return __uint_as_float(static_cast<unsigned>(bits) << 16); }
  static __device__ __forceinline__ Word round(float value) { return __bfloat16_as_ushort(__float2bfloat16_rn(value)); }
  static __device__ __forceinline__ float widen_high(unsigned two) { return __uint_as_float(two & 0xffff0000u); }
  static __device__ __forceinline__ unsigned round_two(float low, float high) {
    const __nv_bfloat162 two = __floats2bfloat162_rn(low, high);
    unsigned bits;
    __builtin_memcpy(&bits, &two, sizeof bits);
    return bits;
  }
};

template <>
struct Bits<__half> {
  using Word = unsigned short;
  static constexpr Dtype dtype = Dtype::float16;
  static __device__ __forceinline__ float widen(Word bits) { return __half2float(__ushort_as_half(bits)); }
  static __device__ __forceinline__ Word round(float value) { return __half_as_ushort(__float2half_rn(value)); }
  static __device__ __forceinline__ float widen_high(unsigned two) { return widen(static_cast<Word>(two >> 16)); }
  static __device__ __forceinline__ unsigned round_two(float low, float high) {
    const __half2 two = __floats2half2_rn(low, high);
    unsigned bits;
    __builtin_memcpy(&bits, &two, sizeof bits);
    return bits;
  }
};

// Elements that fill one load of 16 bytes, the widest there is.
template <typename Element>
inline constexpr int widest_pack = 16 / static_cast<int>(sizeof(Element));

// `count` elements as they are in memory: one load or store of up to 16 bytes, widened to float one at a time.
//
// `count` is 1 or `widest_pack`. An address that a wide pack is read from or written to is a multiple of 16 bytes.
template <typename Element, int count>
struct Pack;

template <typename Element>
struct Pack<Element, 1> {
  typename Bits<Element>::Word word;

  static __device__ __forceinline__ Pack read(const Element* from) {
    return {*reinterpret_cast<const typename Bits<Element>::Word*>(from)};
  }
  __device__ __forceinline__ void write(Element* to) const {
    *reinterpret_cast<typename Bits<Element>::Word*>(to) = word;
  }
  __device__ __forceinline__ float get(int) const { return Bits<Element>::widen(word); }
  static __device__ __forceinline__ Pack of(const float (&values)[1]) { return {Bits<Element>::round(values[0])}; }
};

template <typename Element, int count>
  requires(count == widest_pack<Element> && count > 1)
struct Pack<Element, count> {
  unsigned words[4];

  static __device__ __forceinline__ Pack read(const Element* from) {
    const uint4 all = *reinterpret_cast<const uint4*>(from);
    return {{all.x, all.y, all.z, all.w}};
  }
  __device__ __forceinline__ void write(Element* to) const {
    *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
  }
  __device__ __forceinline__ float get(int i) const {
    if constexpr (sizeof(Element) == 4) {
      return Bits<Element>::widen(words[i]);
    } else {
      const unsigned two = words[i / 2];
      return i % 2 == 0 ? Bits<Element>::widen(static_cast<unsigned short>(two)) : Bits<Element>::widen_high(two);
    }
  }
  static __device__ __forceinline__ Pack of(const float (&values)[count]) {
    Pack pack;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (sizeof(Element) == 4) {
        pack.words[i] = Bits<Element>::round(values[i]);
      } else {
        pack.words[i] = Bits<Element>::round_two(values[2 * i], values[2 * i + 1]);
      }
    }
    return pack;
  }
};

// `count` weights as floats, of a vector that is kept as `Element` or in float32; all `absent` where there is none.
template <typename Element, int count>
__device__ __forceinline__ void read_weights(
    const void* weights, Dtype dtype, long long index, float absent, float (&values)[count]) {
  if (weights == nullptr) {
#pragma unroll
    for (int i = 0; i < count; ++i) values[i] = absent;
  } else if (dtype == Bits<Element>::dtype) {
    const auto pack = Pack<Element, count>::read(static_cast<const Element*>(weights) + index);
#pragma unroll
    for (int i = 0; i < count; ++i) values[i] = pack.get(i);
  } else {
    constexpr int step = count < widest_pack<float> ? count : widest_pack<float>;
#pragma unroll
    for (int at = 0; at < count; at += step) {
      const auto pack = Pack<float, step>::read(static_cast<const float*>(weights) + index + at);
#pragma unroll
      for (int i = 0; i < step; ++i) values[at + i] = pack.get(i);
    }
  }
}

// `count` elements from `from`, as many as there are; 0 for the others.
template <int count, typename Element>
__device__ __forceinline__ void read_some(const Element* from, int there, float (&values)[count]) {
  constexpr int wide = widest_pack<Element>;
  if (there >= count && reinterpret_cast<unsigned long long>(from) % 16 == 0) {
#pragma unroll
    for (int at = 0; at < count; at += wide) {
      const auto pack = Pack<Element, wide>::read(from + at);
#pragma unroll
      for (int i = 0; i < wide; ++i) values[at + i] = pack.get(i);
    }
  } else {
#pragma unroll
    for (int i = 0; i < count; ++i) values[i] = i < there ? Pack<Element, 1>::read(from + i).get(0) : 0.0f;
  }
}

// `call` for the type that a code stands for: `call.operator()<Element>()`; an error for a code that is none.
template <typename Call>
int with_type(Dtype dtype, const Call& call) {
  switch (dtype) {
    case Dtype::float32:
      return call.template operator()<float>();
    case Dtype::bfloat16:
      return call.template operator()<__nv_bfloat16>();
    case Dtype::float16:
      return call.template operator()<__half>();
  }
  return cudaErrorInvalidValue;
}

// Whether wide packs may be read from there; null is as good as any.
inline bool is_aligned(const void* pointer) { return reinterpret_cast<unsigned long long>(pointer) % 16 == 0; }

__device__ __forceinline__ void write_rounded(void* to, long long index, float value, Dtype dtype) {
  switch (dtype) {
    case Dtype::float32:
      static_cast<float*>(to)[index] = value;
      break;
    case Dtype::bfloat16:
      static_cast<__nv_bfloat16*>(to)[index] = __float2bfloat16_rn(value);
      break;
    default:
      static_cast<__half*>(to)[index] = __float2half_rn(value);
  }
}

}  // namespace datahall
