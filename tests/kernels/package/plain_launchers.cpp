// The launchers' contract (csrc/launchers.h) in plain loops over memory of the host, for test_bindings.py.
//
// What the bindings hand over is used to the last argument: each wrong pointer, size or type shows in a result.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "launchers.h"

namespace {

float load(const void* from, long long at, int dtype) {
  if (dtype == 0) return static_cast<const float*>(from)[at];
  // bfloat16 only: float16 is of no other kind to the bindings.
  const std::uint32_t bits = static_cast<std::uint32_t>(static_cast<const std::uint16_t*>(from)[at]) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

void store(void* to, long long at, float value, int dtype) {
  if (dtype == 0) {
    static_cast<float*>(to)[at] = value;
    return;
  }
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits += 0x7fff + ((bits >> 16) & 1);  // to nearest, ties to even
  static_cast<std::uint16_t*>(to)[at] = static_cast<std::uint16_t>(bits >> 16);
}

struct Norm {
  long long rows, width;
  int dtype, weight_dtype;

  float weight_at(const void* weight, long long column, float otherwise) const {
    return weight == nullptr ? otherwise : load(weight, column, weight_dtype);
  }

  void forward(const void* x, const void* residual, const void* weight, const void* bias, void* y, void* summed,
               float* mean, float* rstd, float epsilon) const {
    for (long long row = 0; row < rows; ++row) {
      std::vector<double> values;
      for (long long at = row * width; at < (row + 1) * width; ++at) {
        if (residual != nullptr) store(summed, at, load(x, at, dtype) + load(residual, at, dtype), dtype);
        values.push_back(load(residual != nullptr ? summed : x, at, dtype));
      }
      double sum = 0, squares = 0;
      for (double value : values) sum += value;
      const double centre = mean != nullptr ? sum / static_cast<double>(width) : 0;
      for (double value : values) squares += (value - centre) * (value - centre);
      const double scale = 1 / std::sqrt(squares / static_cast<double>(width) + epsilon);
      if (mean != nullptr) mean[row] = static_cast<float>(centre);
      rstd[row] = static_cast<float>(scale);
      for (long long column = 0; column < width; ++column) {
        const double normal = (values[static_cast<std::size_t>(column)] - centre) * scale;
        const double value = normal * weight_at(weight, column, 1) + weight_at(bias, column, 0);
        store(y, row * width + column, static_cast<float>(value), dtype);
      }
    }
  }

  void backward(const void* dy, const void* dsummed, const void* x, const void* weight, const float* mean,
                const float* rstd, void* dx, float* partial_dweight, float* partial_dbias, void* dweight, void* dbias,
                int partials) const {
    // The workspace is as large as was said: all of it is written.
    for (long long at = 0; at < partials * width; ++at) {
      if (partial_dweight != nullptr) partial_dweight[at] = 0;
      if (partial_dbias != nullptr) partial_dbias[at] = 0;
    }
    for (long long row = 0; row < rows; ++row) {
      double along_mean = 0, along_normal = 0;
      const double centre = mean != nullptr ? mean[row] : 0;
      const auto normal = [&](long long column) { return (load(x, row * width + column, dtype) - centre) * rstd[row]; };
      const auto scaled = [&](long long column) {
        return static_cast<double>(load(dy, row * width + column, dtype)) * weight_at(weight, column, 1);
      };
      for (long long column = 0; column < width; ++column) {
        if (mean != nullptr) along_mean += scaled(column) / static_cast<double>(width);
        along_normal += scaled(column) * normal(column) / static_cast<double>(width);
        const long long at = (row % partials) * width + column;
        const float gradient = load(dy, row * width + column, dtype);
        if (partial_dweight != nullptr) partial_dweight[at] += static_cast<float>(gradient * normal(column));
        if (partial_dbias != nullptr) partial_dbias[at] += gradient;
      }
      for (long long column = 0; column < width; ++column) {
        const long long at = row * width + column;
        const double past = dsummed != nullptr ? load(dsummed, at, dtype) : 0;
        const double value = (scaled(column) - along_mean - normal(column) * along_normal) * rstd[row] + past;
        store(dx, at, static_cast<float>(value), dtype);
      }
    }
    add_up(partial_dweight, dweight, partials);
    add_up(partial_dbias, dbias, partials);
  }

  void add_up(const float* partial, void* sum, int partials) const {
    for (long long column = 0; sum != nullptr && column < width; ++column) {
      float total = 0;
      for (int part = 0; part < partials; ++part) total += partial[part * width + column];
      store(sum, column, total, weight_dtype);
    }
  }
};

// A row that starts with this is the sign to fail.
bool fails(const void* x, long long rows, int dtype) { return rows > 0 && load(x, 0, dtype) == -777.0F; }

}  // namespace

extern "C" {

int datahall_rms_norm_forward(const void* x, const void* residual, const void* weight, void* y, void* summed,
                              float* rstd, long long rows, long long width, float epsilon, int dtype, int weight_dtype,
                              void* stream) {
  if (stream != nullptr || fails(x, rows, dtype)) return 700;
  Norm{rows, width, dtype, weight_dtype}.forward(x, residual, weight, nullptr, y, summed, nullptr, rstd, epsilon);
  return 0;
}

int datahall_layer_norm_forward(const void* x, const void* residual, const void* weight, const void* bias, void* y,
                                void* summed, float* mean, float* rstd, long long rows, long long width, float epsilon,
                                int dtype, int weight_dtype, void* stream) {
  if (stream != nullptr) return 700;
  Norm{rows, width, dtype, weight_dtype}.forward(x, residual, weight, bias, y, summed, mean, rstd, epsilon);
  return 0;
}

int datahall_norm_partials(long long rows, long long, int multiprocessors) { return rows > 2 ? 2 : multiprocessors; }

int datahall_rms_norm_backward(const void* dy, const void* dsummed, const void* x, const void* weight,
                               const float* rstd, void* dx, float* partial_dweight, void* dweight, long long rows,
                               long long width, int partials, int dtype, int weight_dtype, void* stream) {
  if (stream != nullptr) return 700;
  Norm{rows, width, dtype, weight_dtype}.backward(dy, dsummed, x, weight, nullptr, rstd, dx, partial_dweight, nullptr,
                                                  dweight, nullptr, partials);
  return 0;
}

int datahall_layer_norm_backward(const void* dy, const void* dsummed, const void* x, const void* weight,
                                 const float* mean, const float* rstd, void* dx, float* partial_dweight,
                                 float* partial_dbias, void* dweight, void* dbias, long long rows, long long width,
                                 int partials, int dtype, int weight_dtype, void* stream) {
  if (stream != nullptr) return 700;
  Norm{rows, width, dtype, weight_dtype}.backward(dy, dsummed, x, weight, mean, rstd, dx, partial_dweight,
                                                  partial_dbias, dweight, dbias, partials);
  return 0;
}

const char* datahall_error_text(int) { return "an illegal memory access was encountered"; }

}  // extern "C"
