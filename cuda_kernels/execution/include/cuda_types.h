// CUDA's built-in vector types, with CUDA's alignment: an access to one at another address is an error there, too.
#pragma once

struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define DATAHALL_VECTORS_OF(name, T, two_bytes, four_bytes)                                             \
  struct alignas(two_bytes) name##2 {                                                                   \
    T x, y;                                                                                             \
  };                                                                                                    \
  struct alignas(four_bytes) name##4 {                                                                  \
    T x, y, z, w;                                                                                       \
  };                                                                                                    \
  inline __attribute__((always_inline)) name##2 make_##name##2(T x, T y) { return {x, y}; }             \
  inline __attribute__((always_inline)) name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }

DATAHALL_VECTORS_OF(float, float, 8, 16)
DATAHALL_VECTORS_OF(int, int, 8, 16)
DATAHALL_VECTORS_OF(uint, unsigned, 8, 16)
DATAHALL_VECTORS_OF(short, short, 4, 8)
DATAHALL_VECTORS_OF(ushort, unsigned short, 4, 8)
DATAHALL_VECTORS_OF(char, signed char, 2, 4)
DATAHALL_VECTORS_OF(uchar, unsigned char, 2, 4)
#undef DATAHALL_VECTORS_OF

struct alignas(16) ulonglong2 {
  unsigned long long x, y;
};
struct alignas(16) longlong2 {
  long long x, y;
};
struct alignas(16) double2 {
  double x, y;
};
inline __attribute__((always_inline)) ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) {
  return {x, y};
}
inline __attribute__((always_inline)) longlong2 make_longlong2(long long x, long long y) { return {x, y}; }
inline __attribute__((always_inline)) double2 make_double2(double x, double y) { return {x, y}; }
