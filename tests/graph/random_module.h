// Random modules for property tests: everything the text form can say, from a seed.
#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>

#include "graph/graph.h"

namespace tandem::testing {

// "Every" has a field of each kind, any operands and `count` results of f32[`shape`]; "Same" passes its operand
// through; "Body" owns regions; "Constant" holds a tensor; "Sink" has no result.
const OpSet& small_ops();

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  int below(int limit) { return static_cast<int>(engine_() % static_cast<std::uint64_t>(limit)); }
  bool chance(int percent) { return below(100) < percent; }
  std::uint64_t bits() { return engine_(); }
  std::int64_t integer();
  double real();
  // Plain, quoted, with escapes, with letters outside ASCII; never empty. Valid UTF-8.
  std::string name();
  Dim dim(int depth = 3);
  std::vector<Dim> dims();
  DType dtype() { return static_cast<DType>(below(static_cast<int>(DType::u4) + 1)); }
  Tensor tensor();
  Type type() { return {dtype(), dims()}; }
  Sharding sharding(int rank, const Mesh& mesh);
  RecipePtr recipe(int depth = 4);
  AttributeValue value(const Field& field);
  Mesh mesh();

 private:
  std::mt19937_64 engine_;
};

// Result types are random unless `inferred`: then they are what the ops infer.
std::unique_ptr<Module> random_module(std::uint64_t seed, const OpSet& ops, bool inferred = false);

}  // namespace tandem::testing
