// Conversions between formats and other arithmetic, element by element.
#include "platform.cuh"

namespace {

template <typename To, typename From, typename Convert>
struct Each {
  static __global__ void run(const From* x, To* y, long long n) {
    const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < n) y[i] = Convert::of(x[i]);
  }
  static int launch(const From* x, To* y, long long n) {
    return datahall::launch(run, dim3(static_cast<unsigned>((n + 255) / 256)), dim3(256), 0, nullptr, x, y, n);
  }
};

}  // namespace

#define CONVERSION(name, From, To, expression)                          \
  namespace {                                                           \
  struct Do_##name {                                                    \
    static __device__ To of(From x) { return expression; }              \
  };                                                                    \
  }                                                                     \
  extern "C" int name(const From* x, To* y, long long n) { return Each<To, From, Do_##name>::launch(x, y, n); }

CONVERSION(float_to_bfloat16, float, unsigned short, __bfloat16_as_ushort(__float2bfloat16_rn(x)))
CONVERSION(bfloat16_to_float, unsigned short, unsigned, __float_as_uint(__bfloat162float(__ushort_as_bfloat16(x))))
CONVERSION(float_to_float16, float, unsigned short, __half_as_ushort(__float2half_rn(x)))
CONVERSION(float16_to_float, unsigned short, unsigned, __float_as_uint(__half2float(__ushort_as_half(x))))
CONVERSION(float_to_float8, float, unsigned char, __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3))
CONVERSION(float8_to_float, unsigned char, unsigned,
           __float_as_uint(__half2float(__ushort_as_half(__nv_cvt_fp8_to_halfraw(x, __NV_E4M3).x))))
CONVERSION(permuted_bytes, unsigned, unsigned, __byte_perm(x, ~x, 0x7b20))
CONVERSION(reversed_bits, unsigned, unsigned, __brev(x))
CONVERSION(leading_zeros, unsigned, int, __clz(static_cast<int>(x)))
CONVERSION(first_bit, unsigned, int, __ffs(static_cast<int>(x)))
CONVERSION(dot_of_bytes, int, int, __dp4a(x, 0x7f80ff01, 5))
CONVERSION(high_product, unsigned, unsigned, __umulhi(x, 0xdeadbeefu))
