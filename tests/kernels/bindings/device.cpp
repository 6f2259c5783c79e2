// What bindings/device.cpp asks of the CUDA runtime, where there is none; and a launcher that can be made to fail.
#include "launchers/device.h"

extern "C" {

int datahall_multiprocessors(int, int* count) {
  *count = 4;
  return 0;
}

// An H100's.
int datahall_shared_bytes(int, int* count) {
  *count = 227 * 1024;
  return 0;
}

const char* datahall_error_text(int error) {
  return error == 700 ? "an illegal memory access was encountered" : "another error";
}

int __real_datahall_rms_norm_forward(const void* x, const void* residual, const void* weight, void* y, void* summed,
                                     float* rstd, long long rows, long long width, float epsilon, int dtype,
                                     int weight_dtype, void* stream);

// A row that starts with this is the sign to fail.
int __wrap_datahall_rms_norm_forward(const void* x, const void* residual, const void* weight, void* y, void* summed,
                                     float* rstd, long long rows, long long width, float epsilon, int dtype,
                                     int weight_dtype, void* stream) {
  if (rows > 0 && dtype == 0 && *static_cast<const float*>(x) == -777.0F) return 700;
  return __real_datahall_rms_norm_forward(x, residual, weight, y, summed, rstd, rows, width, epsilon, dtype,
                                          weight_dtype, stream);
}

}  // extern "C"
