// The engine file: a valid safetensors file that holds a Plan and one tensor per distinct weight slice. docs/engine_format.md.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "core/mapped_file.h"
#include "core/safetensors.h"
#include "core/tensor.h"
#include "plan/plan.h"

namespace tandem {

struct WriteOptions {
  bool weights = true;  // false: only frozen weights, which no checkpoint can bring
};

// The slice of a weight that belongs to `rank`, of the dtype and shape that the plan says.
using SliceSource = std::function<Tensor(const PlanWeight&, int rank)>;

using ByteSink = std::function<void(std::span<const std::byte>)>;

// Gives the bytes of the file to `sink`, from first to last.
void write_engine(const ByteSink& sink, const Plan& plan, const SliceSource& slice_of, const WriteOptions& options = {});

// Asks for each distinct slice once and holds one at a time. The file appears whole or not at all. Throws Error(io),
// Error(mismatch) for a slice of another dtype or shape, Error(invalid_argument) for weights whose names clash.
void write_engine(const std::filesystem::path& path, const Plan& plan, const SliceSource& slice_of, const WriteOptions& options = {});

// An engine file opened for reading. Immutable; safe to use from several threads; cheap to open: no weight is read.
class EngineFile {
 public:
  // Trusts nothing in the file. `device`: the kind expected; empty accepts any. Throws Error(invalid_engine) that says what was
  // expected and what was found, Error(io) if the file cannot be read.
  static EngineFile open(const std::filesystem::path& path, const OpSet& ops, const std::string& device = "cpu");
  // The same from memory that lives as long as `owner`.
  static EngineFile parse(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, const OpSet& ops,
                          const std::string& device = "cpu");

  const Plan& plan() const { return *plan_; }
  std::shared_ptr<const Plan> shared_plan() const { return plan_; }
  // The same weights under a plan whose steps were resolved for this program.
  void replace_plan(Plan plan) { plan_ = std::make_shared<const Plan>(std::move(plan)); }
  const std::map<std::string, std::string>& metadata() const { return file_.metadata(); }
  // False for a weight-stripped engine.
  bool has_weights() const { return has_weights_; }
  // Bytes of weight slices that `rank` reads.
  std::uint64_t weight_bytes(int rank) const;
  // The slice of `rank`, mapped: its pages are read when they are touched, and given back when the last copy of the tensor goes.
  // Throws Error(invalid_engine) if the file holds no such slice.
  Tensor map_weight(const PlanWeight& weight, int rank) const;

 private:
  explicit EngineFile(Safetensors file) : file_(std::move(file)) {}
  void check_header(std::string_view header, const std::string& device) const;
  void check_slices() const;
  void read_code(Plan& plan) const;

  Safetensors file_;
  std::shared_ptr<const MappedFile> mapped_;  // null where the bytes are not mapped from a file
  std::shared_ptr<const Plan> plan_;
  bool has_weights_ = false;
};

}  // namespace tandem
