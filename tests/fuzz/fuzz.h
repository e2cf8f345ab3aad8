// What a fuzz target gives, in libFuzzer's form; fuzz.cpp drives it, so that no other compiler than the project's is needed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

// Returns when the input is accepted, or refused with an Error that is not our bug. All else that gets out is a finding.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace tandem::fuzz {

// Valid inputs made by the program itself, beside those in files.
std::vector<std::string> own_seeds();
// The inputs that one file of seeds holds.
std::vector<std::string> seeds_in(std::string text);

// Runs `body` and swallows refusals. Error(internal) and other exceptions pass: they are findings.
void refusing(const std::function<void()>& body);
// A property that must hold; throws std::logic_error.
void expect(bool holds, const std::string& what);

inline std::string_view as_text(std::span<const std::byte> bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

}  // namespace tandem::fuzz
