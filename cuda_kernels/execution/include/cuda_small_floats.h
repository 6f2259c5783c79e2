// bfloat16, float16 and float8 (e4m3) as CUDA has them: to the nearest, ties to even; NaN becomes CUDA's one NaN.
#pragma once

namespace datahall::on_cpu {

inline constexpr unsigned sign_of_float = 0x80000000u;
inline constexpr unsigned infinity_of_float = 0x7f800000u;

// `value` without its low `bits` bits, to the nearest, ties to even.
__forceinline__ unsigned shift_rounded(unsigned value, unsigned bits) {
  const unsigned odd = value >> bits & 1u;
  return (value + (1u << (bits - 1)) - 1u + odd) >> bits;
}

inline unsigned short bfloat16_of(float value) {
  const unsigned bits = __builtin_bit_cast(unsigned, value);
  if ((bits & ~sign_of_float) > infinity_of_float) return 0x7fff;
  return static_cast<unsigned short>(shift_rounded(bits, 16));
}

// The bits, without the sign, of a float of `exponent_bits` and `mantissa_bits` nearest to |value|; may be beyond the
// largest finite one. `magnitude`: bits of |value|, which is finite.
inline unsigned narrowed(unsigned magnitude, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = static_cast<int>(magnitude >> 23) - 127 + bias;  // as the narrow float has it
  const int drop = 23 - mantissa_bits;
  if (exponent > 0) {
    return shift_rounded(magnitude - (static_cast<unsigned>(127 - bias) << 23), static_cast<unsigned>(drop));
  }
  const int more = drop + 1 - exponent;
  if (more > 24 + 1) return 0;  // under half of the least one
  const unsigned mantissa = (magnitude & 0x7fffffu) | 0x800000u;
  return shift_rounded(mantissa, static_cast<unsigned>(more));
}

inline unsigned short float16_of(float value) {
  const unsigned bits = __builtin_bit_cast(unsigned, value);
  const unsigned magnitude = bits & ~sign_of_float;
  if (magnitude > infinity_of_float) return 0x7fff;
  const auto sign = static_cast<unsigned short>(bits >> 16 & 0x8000u);
  if (magnitude >= 0x47800000u) return static_cast<unsigned short>(sign | 0x7c00u);  // 65,536 or more
  return static_cast<unsigned short>(sign | narrowed(magnitude, 5, 10));
}

inline float widened(unsigned bits, int exponent_bits, int mantissa_bits) {
  const unsigned mantissa = bits & ((1u << mantissa_bits) - 1u);
  const auto exponent = static_cast<int>(bits >> mantissa_bits & ((1u << exponent_bits) - 1u));
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const bool negative = (bits >> (exponent_bits + mantissa_bits) & 1u) != 0;
  const unsigned significand = exponent == 0 ? mantissa : mantissa | 1u << mantissa_bits;
  const float magnitude =
      __builtin_ldexpf(static_cast<float>(significand), (exponent == 0 ? 1 : exponent) - bias - mantissa_bits);
  return negative ? -magnitude : magnitude;
}

inline float float16_to_float(unsigned short bits) {
  const auto sign = static_cast<unsigned>(bits & 0x8000u) << 16;
  if ((bits & 0x7c00u) == 0x7c00u) {
    return __builtin_bit_cast(float, (bits & 0x3ffu) == 0 ? sign | infinity_of_float : 0x7fffffffu);
  }
  return widened(bits, 5, 10);
}

}  // namespace datahall::on_cpu

struct __nv_bfloat16 {
  unsigned short __x;
  __nv_bfloat16() = default;
  explicit __nv_bfloat16(float value) : __x(datahall::on_cpu::bfloat16_of(value)) {}
  operator float() const { return __uint_as_float(static_cast<unsigned>(__x) << 16); }
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

struct __half {
  unsigned short __x;
  __half() = default;
  explicit __half(float value) : __x(datahall::on_cpu::float16_of(value)) {}
  operator float() const { return datahall::on_cpu::float16_to_float(__x); }
};
struct alignas(4) __half2 {
  __half x, y;
};
using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;
using half = __half;
using half2 = __half2;

__forceinline__ unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) { return value.__x; }
__forceinline__ __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  __nv_bfloat16 value;
  value.__x = bits;
  return value;
}
__forceinline__ unsigned short __half_as_ushort(__half value) { return value.__x; }
__forceinline__ __half __ushort_as_half(unsigned short bits) {
  __half value;
  value.__x = bits;
  return value;
}

__forceinline__ __nv_bfloat16 __float2bfloat16_rn(float value) { return __nv_bfloat16(value); }
__forceinline__ __nv_bfloat16 __float2bfloat16(float value) { return __nv_bfloat16(value); }
__forceinline__ float __bfloat162float(__nv_bfloat16 value) { return value; }
__forceinline__ __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {__nv_bfloat16(x), __nv_bfloat16(y)};
}
__forceinline__ __nv_bfloat162 __float22bfloat162_rn(float2 both) { return __floats2bfloat162_rn(both.x, both.y); }
__forceinline__ float2 __bfloat1622float2(__nv_bfloat162 both) { return {both.x, both.y}; }
__forceinline__ __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
__forceinline__ float __low2float(__nv_bfloat162 both) { return both.x; }
__forceinline__ float __high2float(__nv_bfloat162 both) { return both.y; }

__forceinline__ __half __float2half_rn(float value) { return __half(value); }
__forceinline__ __half __float2half(float value) { return __half(value); }
__forceinline__ float __half2float(__half value) { return value; }
__forceinline__ __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
__forceinline__ __half2 __float22half2_rn(float2 both) { return __floats2half2_rn(both.x, both.y); }
__forceinline__ float2 __half22float2(__half2 both) { return {both.x, both.y}; }
__forceinline__ __half2 __halves2half2(__half x, __half y) { return {x, y}; }
__forceinline__ float __low2float(__half2 both) { return both.x; }
__forceinline__ float __high2float(__half2 both) { return both.y; }

using __nv_fp8_storage_t = unsigned char;
enum __nv_saturation_t { __NV_NOSAT, __NV_SATFINITE };
enum __nv_fp8_interpretation_t { __NV_E4M3 };
struct __half_raw {
  unsigned short x;
};

// e4m3 has no infinity: 0x7f is NaN, 0x7e (448) is the largest.
inline __nv_fp8_storage_t __nv_cvt_float_to_fp8(float value, __nv_saturation_t saturate, __nv_fp8_interpretation_t) {
  using namespace datahall::on_cpu;
  const unsigned bits = __float_as_uint(value);
  const unsigned magnitude = bits & ~sign_of_float;
  if (magnitude > infinity_of_float) return 0x7f;
  const unsigned sign = bits >> 24 & 0x80u;
  // 464 lies between 448 and what would be 480: a tie, to the even 448.
  if (magnitude > __float_as_uint(464.0f)) {
    return static_cast<__nv_fp8_storage_t>(sign | (saturate == __NV_SATFINITE ? 0x7eu : 0x7fu));
  }
  return static_cast<__nv_fp8_storage_t>(sign | narrowed(magnitude, 4, 3));
}
inline __half_raw __nv_cvt_fp8_to_halfraw(__nv_fp8_storage_t bits, __nv_fp8_interpretation_t) {
  if ((bits & 0x7fu) == 0x7fu) return {0x7fff};
  return {datahall::on_cpu::float16_of(datahall::on_cpu::widened(bits, 4, 3))};
}

struct __nv_fp8_e4m3 {
  __nv_fp8_storage_t __x;
  __nv_fp8_e4m3() = default;
  explicit __nv_fp8_e4m3(float value) : __x(__nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3)) {}
  explicit operator float() const {
    return datahall::on_cpu::float16_to_float(__nv_cvt_fp8_to_halfraw(__x, __NV_E4M3).x);
  }
};
