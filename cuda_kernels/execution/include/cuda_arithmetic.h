// Arithmetic of the device: exact where CUDA is. What is approximate in CUDA (__expf, __fdividef, rsqrtf, ...) is
// rounded correctly, or nearly so, here: a test's tolerance has to allow for CUDA's own error, of 2 ulp or so.
#pragma once

__forceinline__ unsigned __float_as_uint(float value) { return __builtin_bit_cast(unsigned, value); }
__forceinline__ int __float_as_int(float value) { return __builtin_bit_cast(int, value); }
__forceinline__ float __uint_as_float(unsigned bits) { return __builtin_bit_cast(float, bits); }
__forceinline__ float __int_as_float(int bits) { return __builtin_bit_cast(float, bits); }
__forceinline__ long long __double_as_longlong(double value) { return __builtin_bit_cast(long long, value); }
__forceinline__ double __longlong_as_double(long long bits) { return __builtin_bit_cast(double, bits); }

__forceinline__ int __popc(unsigned bits) { return __builtin_popcount(bits); }
__forceinline__ int __popcll(unsigned long long bits) { return __builtin_popcountll(bits); }
__forceinline__ int __ffs(int bits) { return __builtin_ffs(bits); }
__forceinline__ int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz(static_cast<unsigned>(bits)); }
__forceinline__ int __clzll(long long bits) {
  return bits == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(bits));
}
inline unsigned __brev(unsigned bits) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; ++i) reversed |= (bits >> i & 1u) << (31 - i);
  return reversed;
}
// Four of the eight bytes of y:x, chosen by the low three bits of each of the selector's digits; the fourth bit of a
// digit asks for the chosen byte's sign in all of its eight bits.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const unsigned long long bytes = static_cast<unsigned long long>(y) << 32 | x;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned digit = selector >> (4 * i) & 0xfu;
    unsigned byte = static_cast<unsigned>(bytes >> (8 * (digit & 7u))) & 0xffu;
    if ((digit & 8u) != 0) byte = (byte & 0x80u) != 0 ? 0xffu : 0u;
    result |= byte << (8 * i);
  }
  return result;
}
__forceinline__ unsigned __umulhi(unsigned x, unsigned y) {
  return static_cast<unsigned>(static_cast<unsigned long long>(x) * y >> 32);
}
__forceinline__ int __mulhi(int x, int y) { return static_cast<int>(static_cast<long long>(x) * y >> 32); }
__forceinline__ unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(x) * y >> 64);
}
// Sums of products of four bytes each, wrapping as the device does.
inline int __dp4a(int x, int y, int sum) {
  auto total = static_cast<unsigned>(sum);
  for (int i = 0; i < 4; ++i) {
    const int product = static_cast<signed char>(x >> (8 * i)) * static_cast<signed char>(y >> (8 * i));
    total += static_cast<unsigned>(product);
  }
  return static_cast<int>(total);
}
inline unsigned __dp4a(unsigned x, unsigned y, unsigned sum) {
  for (int i = 0; i < 4; ++i) sum += (x >> (8 * i) & 0xffu) * (y >> (8 * i) & 0xffu);
  return sum;
}

__forceinline__ float rsqrtf(float x) { return static_cast<float>(1.0 / __builtin_sqrt(static_cast<double>(x))); }
__forceinline__ float __frcp_rn(float x) { return 1.0f / x; }
__forceinline__ float __fdividef(float x, float y) { return x / y; }
__forceinline__ float __fsqrt_rn(float x) { return __builtin_sqrtf(x); }
__forceinline__ float __fmaf_rn(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
__forceinline__ float __fmul_rn(float x, float y) { return x * y; }
__forceinline__ float __fadd_rn(float x, float y) { return x + y; }
// Round to the nearest, ties to even; NaN to 0, and what is beyond an int to its bounds, as the device does.
inline int __float2int_rn(float x) {
  if (x != x) return 0;
  if (x >= 2147483648.0f) return 2147483647;
  if (x <= -2147483648.0f) return -2147483647 - 1;
  return static_cast<int>(__builtin_rintf(x));
}

namespace datahall::on_cpu {
__forceinline__ float exp_of(float x) { return ::expf(x); }
__forceinline__ float log_of(float x) { return ::logf(x); }
__forceinline__ float cos_of(float x) { return ::cosf(x); }
__forceinline__ float sin_of(float x) { return ::sinf(x); }
__forceinline__ float log2_of(float x) { return ::log2f(x); }
}  // namespace datahall::on_cpu
// Macros: the C library declares functions of these names, and defines none.
#define __expf ::datahall::on_cpu::exp_of
#define __logf ::datahall::on_cpu::log_of
#define __log2f ::datahall::on_cpu::log2_of
#define __cosf ::datahall::on_cpu::cos_of
#define __sinf ::datahall::on_cpu::sin_of

#define DATAHALL_MIN_MAX_OF(T)                                    \
  __forceinline__ T min(T x, T y) { return y < x ? y : x; }       \
  __forceinline__ T max(T x, T y) { return x < y ? y : x; }
DATAHALL_MIN_MAX_OF(int)
DATAHALL_MIN_MAX_OF(unsigned)
DATAHALL_MIN_MAX_OF(long)
DATAHALL_MIN_MAX_OF(unsigned long)
DATAHALL_MIN_MAX_OF(long long)
DATAHALL_MIN_MAX_OF(unsigned long long)
#undef DATAHALL_MIN_MAX_OF
// Of a number and NaN, the number.
__forceinline__ float min(float x, float y) { return __builtin_fminf(x, y); }
__forceinline__ float max(float x, float y) { return __builtin_fmaxf(x, y); }
__forceinline__ double min(double x, double y) { return __builtin_fmin(x, y); }
__forceinline__ double max(double x, double y) { return __builtin_fmax(x, y); }
