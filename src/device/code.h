// Machine code of kernels of GPUs that are made from CUDA C++ when a program is built or runs, as engines keep it.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

using CodeBytes = std::shared_ptr<const std::vector<std::byte>>;

// 90 of "sm_90a"; 0 of anything else.
int sm_of_target(std::string_view target);
// Whether machine code for GPUs of compute capability code_sm / 10 runs on those of sm / 10: of the same generation, and not older.
constexpr bool runs_on(int code_sm, int sm) { return code_sm / 10 == sm / 10 && code_sm <= sm; }

// Whether texts can be compiled here; `why`, where given, is then set to the reason if not. No GPU is needed for it.
bool can_compile_cuda(std::string* why = nullptr);
// For GPUs of compute capability sm / 10: machine code, or PTX where the compiler does not know their generation. Products and sums are not
// contracted. Throws Error(unsupported) without the compiler, saying how to get it, or where it is too new for such a GPU, Error(internal)
// with its messages where the text does not compile.
CodeBytes compile_cuda(const std::string& text, int sm);
// From now on kernels of the text with this key (text_key) get the code instead of being compiled, on GPUs that it runs on. Thread-safe;
// kept until the process ends.
void offer_cuda_code(const std::string& key, int sm, CodeBytes code);

}  // namespace tandem
