// Random changes to inputs.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace tandem::fuzz {

class Mutator {
 public:
  explicit Mutator(std::uint64_t seed) : random_(seed) {}

  std::size_t below(std::size_t limit) { return limit == 0 ? 0 : random_() % limit; }
  // One to five changes to `input`; `other` is a second input to take pieces from.
  std::string changed(std::string input, const std::string& other);

 private:
  void change(std::string& s, const std::string& other);
  void change_number(std::string& s);
  void swap_words(std::string& s, const std::string& other);
  void overwrite_word(std::string& s, const std::string& other);

  std::mt19937_64 random_;
};

}  // namespace tandem::fuzz
