#include "symbols.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

namespace datahall::execution {

// A thread-local of known name and address: all others are found by their distance from it.
extern "C" {
thread_local char datahall_cpu_anchor[16] = {1};
}

namespace {

std::string demangled(const char* name) {
  int status = 0;
  char* text = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  std::string result = status == 0 ? text : name;
  std::free(text);
  return result;
}

// "f<float>(int)::tile" is called "tile".
std::string last_part(const std::string& name) {
  const auto at = name.rfind("::");
  return at == std::string::npos ? name : name.substr(at + 2);
}

}  // namespace

char* Symbols::thread_local_base() const { return datahall_cpu_anchor - anchor_offset_; }

std::string Symbols::function_name(const void* code) const {
  const auto offset = reinterpret_cast<std::uintptr_t>(code) - load_address;
  for (const auto& [value, name] : functions_) {
    if (value == offset) return demangled(name.c_str());
  }
  return "a kernel";
}

const Symbols& symbols() {
  static const Symbols found = [] {
    Symbols s;
    Dl_info info{};
    dladdr(reinterpret_cast<const void*>(&symbols), &info);
    s.load_address = reinterpret_cast<std::uintptr_t>(info.dli_fbase);
    std::ifstream stream(info.dli_fname, std::ios::binary);
    const std::vector<char> file{std::istreambuf_iterator<char>(stream), {}};
    const auto at = [&](std::size_t offset) { return file.data() + offset; };
    const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(at(0));
    for (int i = 0; i < header->e_phnum; ++i) {
      const auto* segment = reinterpret_cast<const ElfW(Phdr)*>(at(header->e_phoff)) + i;
      const auto low = s.load_address + segment->p_vaddr;
      const auto high = low + segment->p_memsz;
      if (segment->p_type == PT_LOAD) {
        if (s.data_low == 0 || low < s.data_low) s.data_low = low;
        if (high > s.data_high) s.data_high = high;
        if ((segment->p_flags & PF_W) != 0) {
          s.writable_low = low;
          s.writable_high = high;
        }
      }
    }
    // What is read-only once it is relocated lies at the start of the writable segment.
    for (int i = 0; i < header->e_phnum; ++i) {
      const auto* segment = reinterpret_cast<const ElfW(Phdr)*>(at(header->e_phoff)) + i;
      if (segment->p_type == PT_GNU_RELRO) s.writable_low = s.load_address + segment->p_vaddr + segment->p_memsz;
    }
    const auto* sections = reinterpret_cast<const ElfW(Shdr)*>(at(header->e_shoff));
    for (int i = 0; i < header->e_shnum; ++i) {
      if (sections[i].sh_type != SHT_SYMTAB) continue;
      const char* names = at(sections[sections[i].sh_link].sh_offset);
      const auto* symbol = reinterpret_cast<const ElfW(Sym)*>(at(sections[i].sh_offset));
      for (std::size_t n = sections[i].sh_size / sizeof *symbol; n > 0; --n, ++symbol) {
        const char* name = names + symbol->st_name;
        const int type = ELF64_ST_TYPE(symbol->st_info);
        if (symbol->st_shndx == SHN_UNDEF) continue;
        if (type == STT_FUNC) s.functions_.emplace_back(symbol->st_value, name);
        if (type != STT_TLS) continue;
        if (std::strcmp(name, "datahall_cpu_anchor") == 0) {
          s.anchor_offset_ = static_cast<std::ptrdiff_t>(symbol->st_value);
        } else {
          s.shared_arrays.push_back(
              {last_part(demangled(name)), static_cast<std::ptrdiff_t>(symbol->st_value), symbol->st_size});
        }
      }
    }
    return s;
  }();
  return found;
}

}  // namespace datahall::execution
