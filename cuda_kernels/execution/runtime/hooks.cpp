// What the compiler's instrumentation calls: each load and store (-fsanitize=thread), and what the language does not
// define (-fsanitize=undefined: misaligned addresses, indices beyond an array, overflow). No library of either is
// linked; these are all that there is.
#include <cstring>

#include "block.h"

using namespace datahall::execution;

#define SITE site_of(__builtin_return_address(0))
#define ACCESS(bytes, kind) \
  if (current != nullptr) check_access(at, bytes, kind, SITE)

namespace {

struct SourceLocation {
  const char* file;
  std::uint32_t line;
  std::uint32_t column;
};

struct TypeDescriptor {
  std::uint16_t kind;
  std::uint16_t info;
  char name[1];
};

struct TypeMismatch {
  SourceLocation location;
  const TypeDescriptor* type;
  unsigned char log_alignment;
  unsigned char kind;
};

struct OutOfBounds {
  SourceLocation location;
  const TypeDescriptor* array;
  const TypeDescriptor* index;
};

struct Overflow {
  SourceLocation location;
  const TypeDescriptor* type;
};

void overflow(const Overflow* data, Site site, const char* what) {
  add_finding("overflow", site, 0, format("%s of type %s does not fit into it, at %s", what, data->type->name,
                                          at_site(site).c_str()));
}

}  // namespace

extern "C" {

#define HOOKS_OF(bytes)                                                             \
  void __tsan_read##bytes(void* at) { ACCESS(bytes, Kind::read); }                  \
  void __tsan_write##bytes(void* at) { ACCESS(bytes, Kind::write); }                \
  void __tsan_unaligned_read##bytes(void* at) { ACCESS(bytes, Kind::read); }        \
  void __tsan_unaligned_write##bytes(void* at) { ACCESS(bytes, Kind::write); }      \
  void __tsan_volatile_read##bytes(void* at) { ACCESS(bytes, Kind::read); }         \
  void __tsan_volatile_write##bytes(void* at) { ACCESS(bytes, Kind::write); }
HOOKS_OF(1)
HOOKS_OF(2)
HOOKS_OF(4)
HOOKS_OF(8)
HOOKS_OF(16)

void __tsan_read_range(void* at, std::size_t bytes) { ACCESS(bytes, Kind::read); }
void __tsan_write_range(void* at, std::size_t bytes) { ACCESS(bytes, Kind::write); }
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

void* datahall_cpu_copy(void* to, const void* from, std::size_t bytes) {
  if (is_checked && current != nullptr && bytes != 0) {
    check_access(from, bytes, Kind::read, SITE);
    check_access(to, bytes, Kind::write, SITE);
  }
  return std::memmove(to, from, bytes);
}

void* datahall_cpu_fill(void* to, int value, std::size_t bytes) {
  if (is_checked && current != nullptr && bytes != 0) check_access(to, bytes, Kind::write, SITE);
  return std::memset(to, value, bytes);
}

unsigned long long datahall_cpu_atomic(int how, void* at, int bytes, unsigned long long operand,
                                       unsigned long long expected) {
  if (is_checked && current != nullptr) check_atomic(at, static_cast<std::size_t>(bytes), SITE);
  const auto size = static_cast<std::size_t>(bytes);
  unsigned long long before = 0;
  std::memcpy(&before, at, size);
  const auto as_int = [](unsigned long long bits) { return static_cast<int>(static_cast<unsigned>(bits)); };
  unsigned long long after = operand;
  switch (how) {
    case 0:
      after = before + operand;
      break;
    case 1: {
      float sum = 0;
      float more = 0;
      std::memcpy(&sum, &before, sizeof sum);
      std::memcpy(&more, &operand, sizeof more);
      sum += more;
      after = 0;
      std::memcpy(&after, &sum, sizeof sum);
      break;
    }
    case 2:
      break;
    case 3:
      after = before == expected ? operand : before;
      break;
    case 4:
      after = before > operand ? before : operand;
      break;
    case 5:
      after = before < operand ? before : operand;
      break;
    case 6:
      after = as_int(before) > as_int(operand) ? before : operand;
      break;
    default:
      after = as_int(before) < as_int(operand) ? before : operand;
  }
  std::memcpy(at, &after, size);
  return before;
}

void __ubsan_handle_type_mismatch_v1(const TypeMismatch* data, std::uintptr_t at) {
  const auto alignment = std::uintptr_t{1} << data->log_alignment;
  if (at == 0 || at % alignment == 0) return;  // null: its access is found, too
  const Site site = SITE;
  add_finding("misaligned", site, 0,
              format("an address that is no multiple of %zu (it is %zu beyond one) as one of %s, at %s",
                     static_cast<std::size_t>(alignment), static_cast<std::size_t>(at % alignment), data->type->name,
                     at_site(site).c_str()));
}

void __ubsan_handle_out_of_bounds(const OutOfBounds* data, std::uintptr_t index) {
  const Site site = SITE;
  add_finding("index", site, 0, format("index %lld of %s, at %s", static_cast<long long>(index), data->array->name,
                                       at_site(site).c_str()));
}

void __ubsan_handle_add_overflow(const Overflow* data, std::uintptr_t, std::uintptr_t) { overflow(data, SITE, "a sum"); }
void __ubsan_handle_sub_overflow(const Overflow* data, std::uintptr_t, std::uintptr_t) {
  overflow(data, SITE, "a difference");
}
void __ubsan_handle_mul_overflow(const Overflow* data, std::uintptr_t, std::uintptr_t) {
  overflow(data, SITE, "a product");
}
void __ubsan_handle_negate_overflow(const Overflow* data, std::uintptr_t) { overflow(data, SITE, "a negation"); }
void __ubsan_handle_shift_out_of_bounds(const Overflow* data, std::uintptr_t, std::uintptr_t) {
  overflow(data, SITE, "a shift");
}
void __ubsan_handle_divrem_overflow(const Overflow* data, std::uintptr_t, std::uintptr_t) {
  const Site site = SITE;
  add_finding("division", site, 0, format("a division by zero, or beyond %s, at %s", data->type->name,
                                          at_site(site).c_str()));
  if (current != nullptr) stop_launch();  // the processor would end the whole program
}

}  // extern "C"
