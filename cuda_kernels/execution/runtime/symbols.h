// What the library's own symbol table says: shared arrays, and the names of kernels.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace datahall::execution {

struct SharedArray {
  std::string name;
  std::ptrdiff_t offset;  // in the thread-local segment
  std::size_t bytes;
};

struct Symbols {
  std::uintptr_t load_address = 0;
  std::uintptr_t data_low = 0, data_high = 0;          // all that is mapped of the library
  std::uintptr_t writable_low = 0, writable_high = 0;  // of that, what a kernel may not read: its globals
  std::vector<SharedArray> shared_arrays;
  char* thread_local_base() const;
  std::string function_name(const void* code) const;

 private:
  friend const Symbols& symbols();
  std::vector<std::pair<std::uintptr_t, std::string>> functions_;
  std::ptrdiff_t anchor_offset_ = 0;
};

const Symbols& symbols();

}  // namespace datahall::execution
