// What the caller gives for the inputs and outputs of an engine, checked against what the engine says about them. Needs the GIL.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "arrays.h"

namespace tandem::python {

// The inputs, or the outputs, of an engine, found by name.
class PortTable {
 public:
  // `side` is "input" or "output".
  PortTable(std::vector<Port> ports, const char* side);
  std::size_t size() const { return ports_.size(); }
  const Port& operator[](std::size_t i) const { return ports_[i]; }
  nb::handle name(std::size_t i) const { return names_[i]; }
  // "input 'x'", for messages.
  const std::string& label(std::size_t i) const { return labels_[i]; }
  // Throws Error(invalid_argument) listing the names there are.
  std::size_t find(nb::handle name) const;

 private:
  std::vector<Port> ports_;
  std::vector<nb::object> names_;
  std::vector<std::string> labels_;
  std::string side_;
};

// The arrays of one call, kept as long as this lives.
class GivenArrays {
 public:
  // `place`: where arrays may lie beside the host.
  explicit GivenArrays(const PortTable& table, const Place& place = {})
      : table_(table), place_(place), arrays_(table.size()), per_rank_(table.size()) {}
  // From a mapping (or None) by name. Throws Error(invalid_argument) for what is no mapping, no array, of another element type.
  void take(nb::handle mapping);
  // Inputs that are not given. Throws naming the first.
  void require_all() const;
  // The same for the arrays that outputs are to be written to: dense, writable, not overlapping `inputs`.
  void require_writable(const GivenArrays& inputs) const;

  const std::optional<BorrowedArray>& operator[](std::size_t i) const { return arrays_[i]; }
  // Where the port is per rank and a list was given: its arrays.
  const std::vector<BorrowedArray>& list(std::size_t i) const { return per_rank_[i]; }
  // All as the engine takes them; this is empty afterwards. Counts what had to be packed in `copies`.
  RankArrays share(int& copies);
  // What outputs are to be: like the first array that is not numpy's.
  ArrayKind kind() const { return kind_; }
  nb::handle like() const { return like_; }
  // Whether they lie on the GPU. Throws Error(invalid_argument) naming two that do not lie on the same side, or one of the GPU that is not
  // dense.
  bool on_gpu() const;

 private:
  void take_one(std::size_t port, nb::handle value);
  BorrowedArray read(std::size_t port, nb::handle value, const std::string& what);

  const PortTable& table_;
  Place place_;
  std::vector<std::optional<BorrowedArray>> arrays_;
  std::vector<std::vector<BorrowedArray>> per_rank_;
  ArrayKind kind_ = ArrayKind::numpy;
  nb::handle like_;
};

// An output array in the shape in which it is given back.
inline nb::object given_back(MadeArray made, const GivenArrays& inputs) {
  return inputs.kind() == ArrayKind::other ? converted_like(made.object, inputs.like()) : std::move(made.object);
}

}  // namespace tandem::python
